// Package firebreakhttp puts firebreak around HTTP: [Transport] guards a client's
// requests, [Check] is the verdict on a response, and on the server's side there are
// [Handler] for a caller's deadline, [Error] for the answer to a call that came to
// nothing, and [Health] and [Ready] for whoever watches the service.
//
//	reg := firebreak.NewRegistry(firebreak.Config{Timeout: time.Second})
//	rates := reg.Command("rates", firebreak.Config{MaxConcurrent: 20})
//	client := &http.Client{Transport: &firebreakhttp.Transport{Command: rates}}
//
// A Transport guards any client of HTTP, those that other packages make too, up to
// the response's headers. Where the answer has a type, [firebreak.Do] around the whole
// of it (request, status, body, decoding) guards more, and its fallbacks answer with
// that type:
//
//	rate, err := firebreak.Do(ctx, rates, func(ctx context.Context) (Rate, error) {
//		resp, err := get(ctx, url)
//		if err != nil {
//			return Rate{}, err
//		}
//		defer resp.Body.Close()
//		if err := firebreakhttp.Check(resp); err != nil {
//			return Rate{}, err
//		}
//		return decode(resp.Body)
//	}, lastRate)
//
// Use one of the two for a request, not both: nested, each call would count twice.
package firebreakhttp
