package main

import (
	"context"
	"errors"
	"net"
	"net/rpc"
	"sync"
	"time"
)

// The way to the box office: net/rpc over TCP. It can hang, and its process can be
// gone, as that of any far end.

// A server has a [BoxOffice] answer at an address.
type server struct {
	rpc      *rpc.Server
	desk     *desk
	addr     string
	listener net.Listener
	running  sync.WaitGroup

	mu    sync.Mutex        // guards conns
	conns map[net.Conn]bool // nil while it is stopped
}

// A desk is the methods as net/rpc wants them. While it is shut, whoever comes waits.
type desk struct {
	office BoxOffice

	mu   sync.Mutex
	shut chan struct{} // closed when it opens; nil if it is open
}

func newServer(office BoxOffice) (*server, error) {
	s := &server{rpc: rpc.NewServer(), desk: &desk{office: office}, addr: "127.0.0.1:0"}
	if err := s.rpc.RegisterName("BoxOffice", s.desk); err != nil {
		return nil, err
	}
	return s, s.start()
}

// start listens, after a stop at the same address.
func (s *server) start() error {
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		return err
	}
	s.listener, s.addr = l, l.Addr().String()
	s.mu.Lock()
	s.conns = map[net.Conn]bool{}
	s.mu.Unlock()
	s.running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // stopped
			}
			s.running.Go(func() { s.serve(conn) })
		}
	})
	return nil
}

func (s *server) serve(conn net.Conn) {
	s.mu.Lock()
	stopped := s.conns == nil
	if !stopped {
		s.conns[conn] = true
	}
	s.mu.Unlock()
	if stopped {
		_ = conn.Close()
		return
	}
	s.rpc.ServeConn(conn) // closes it
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
}

// stop is a crash: nobody listens, and connections break. Those at the desk are
// still served, but nobody hears the answer.
func (s *server) stop() {
	_ = s.listener.Close()
	s.mu.Lock()
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.desk.open()
	s.running.Wait()
}

// hang has everybody wait who comes from now on.
func (d *desk) hang() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shut == nil {
		d.shut = make(chan struct{})
	}
}

// open serves those who wait.
func (d *desk) open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shut != nil {
		close(d.shut)
		d.shut = nil
	}
}

func serve[In, Out any](d *desk, fn func(context.Context, In) (Out, error), in In, out *Out) (err error) {
	d.mu.Lock()
	shut := d.shut
	d.mu.Unlock()
	if shut != nil {
		<-shut
	}
	*out, err = fn(context.Background(), in)
	return err
}

func (d *desk) Programme(in time.Weekday, out *Programme) error {
	return serve(d, d.office.Programme, in, out)
}
func (d *desk) Show(in string, out *Show) error     { return serve(d, d.office.Show, in, out) }
func (d *desk) Seats(in string, out *Seats) error   { return serve(d, d.office.Seats, in, out) }
func (d *desk) Ticket(in string, out *Ticket) error { return serve(d, d.office.Ticket, in, out) }
func (d *desk) Book(in Booking, out *Ticket) error  { return serve(d, d.office.Book, in, out) }
func (d *desk) Cancel(in string, out *Ticket) error { return serve(d, d.office.Cancel, in, out) }

// A client is a [BoxOffice] at the other end of a connection, which it makes anew
// when it is broken.
type client struct {
	addr string

	mu   sync.Mutex
	conn *rpc.Client // nil before the first call, and after an error
}

// ask heeds its context, although net/rpc does not: it leaves, and the answer, if one
// comes, is dropped. So semaphore isolation will do; a client that cannot be left
// wants pool isolation.
func ask[Out any](ctx context.Context, c *client, method string, in any) (out Out, err error) {
	conn, err := c.connection(ctx)
	if err != nil {
		return out, err
	}
	reply := new(Out) // not out: it may be written to after we have left
	select {
	case call := <-conn.Go(method, in, reply, make(chan *rpc.Call, 1)).Done:
		if call.Error != nil {
			return out, c.failed(conn, call.Error)
		}
		return *reply, nil
	case <-ctx.Done():
		return out, ctx.Err()
	}
}

func (c *client) connection(ctx context.Context) (*rpc.Client, error) {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn != nil {
		return conn, nil
	}
	var dialer net.Dialer
	tcp, err := dialer.DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return nil, err
	}
	conn = rpc.NewClient(tcp)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil { // others were faster
		_ = conn.Close()
		return c.conn, nil
	}
	c.conn = conn
	return conn, nil
}

// failed makes of an error what it was at the far end; one of the connection's own
// is its end.
func (c *client) failed(conn *rpc.Client, err error) error {
	if said, ok := errors.AsType[rpc.ServerError](err); ok {
		for _, known := range []error{ErrNotFound, ErrSoldOut} {
			if string(said) == known.Error() {
				return known
			}
		}
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = conn.Close()
	if c.conn == conn {
		c.conn = nil
	}
	return err
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

func (c *client) Programme(ctx context.Context, day time.Weekday) (Programme, error) {
	return ask[Programme](ctx, c, "BoxOffice.Programme", day)
}
func (c *client) Show(ctx context.Context, name string) (Show, error) {
	return ask[Show](ctx, c, "BoxOffice.Show", name)
}
func (c *client) Seats(ctx context.Context, show string) (Seats, error) {
	return ask[Seats](ctx, c, "BoxOffice.Seats", show)
}
func (c *client) Ticket(ctx context.Context, ref string) (Ticket, error) {
	return ask[Ticket](ctx, c, "BoxOffice.Ticket", ref)
}
func (c *client) Book(ctx context.Context, b Booking) (Ticket, error) {
	return ask[Ticket](ctx, c, "BoxOffice.Book", b)
}
func (c *client) Cancel(ctx context.Context, ref string) (Ticket, error) {
	return ask[Ticket](ctx, c, "BoxOffice.Cancel", ref)
}
