package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// clientTimeout is what a careful team gives its HTTP clients, firebreak or not.
const clientTimeout = time.Second

var errNotFound = errors.New("not found")

// A client calls one backend, over connections that it shares with no other.
type client struct {
	name, url string
	http      http.Client
}

func newClient(name, url string) *client {
	return &client{name: name, url: url, http: http.Client{
		Timeout: clientTimeout,
		// The default keeps two idle connections for a host and closes the others: at
		// every burst it would dial again.
		Transport: &http.Transport{MaxIdleConnsPerHost: workers},
	}}
}

// do returns a response of status 200, whose body the caller closes.
func (c *client) do(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/"+url.PathEscape(path)+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.error(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // to its end, or the connection cannot be used again
	if resp.StatusCode == http.StatusNotFound {
		return nil, errNotFound // an answer like any other: see Classify
	}
	return nil, c.error(errors.New(resp.Status))
}

func (c *client) error(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // without the address, which is in no one's interest
	}
	return fmt.Errorf("%s: %w", c.name, err)
}

// get asks c for a value.
func get[T any](ctx context.Context, c *client, path string, query url.Values) (v T, err error) {
	resp, err := c.do(ctx, path, query)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(body, &v)
	}
	if err != nil {
		return v, c.error(err)
	}
	return v, nil
}

// lines asks c for a value on each line, which come one by one. An error is the last.
func lines[T any](ctx context.Context, c *client, path string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		resp, err := c.do(ctx, path, nil)
		if err != nil {
			yield(none, err)
			return
		}
		defer resp.Body.Close()
		in := json.NewDecoder(resp.Body)
		for {
			var v T
			switch err := in.Decode(&v); {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield(none, c.error(err))
				return
			case !yield(v, nil):
				return
			}
		}
	}
}
