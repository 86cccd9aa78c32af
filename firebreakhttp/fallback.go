package firebreakhttp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
)

// NewResponse makes a response for a [Transport.Fallback], such as a client expects of
// a server: with a status and its name, a Content-Type (none if that is empty), a length
// and a body, which is not copied.
func NewResponse(req *http.Request, status int, contentType string, body []byte) *http.Response {
	header := http.Header{"Content-Length": {strconv.Itoa(len(body))}}
	if contentType != "" {
		header.Set("Content-Type", contentType)
	}
	return &http.Response{
		Status: (&StatusError{status}).Error(), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
		Request: req,
	}
}

// fallback is Transport.Fallback as [firebreak.Do] asks it.
func (x *exchange) fallback(_ context.Context, cause error) (*http.Response, error) {
	resp, err := x.transport.Fallback(x.req, cause)
	switch {
	case err != nil:
		return nil, err
	case resp == nil:
		return nil, errors.New("firebreakhttp: Transport: Fallback returned neither a response nor an error")
	}
	if resp.Body == nil { // a client may count on it
		resp.Body = http.NoBody
	}
	if resp.Request == nil {
		resp.Request = x.req
	}
	return resp, nil
}
