// Package dashboard is a live page of a registry's commands, in the spirit of the
// original's: a tile for each, with its health, its traffic, its counters by outcome,
// its latencies and its state, grouped by the bulkhead that they share; and behind
// each tile the evidence that opened its circuit, its history and its settings.
//
//	page := dashboard.New(reg, dashboard.Options{})
//	defer page.Close()
//	admin.Handle("/firebreak/", page)
//
// Everything is in the binary; the page asks nothing of any other host, under a
// content security policy that would not let it. It is live over server-sent events.
// While nobody watches it runs nothing but an observer of transitions.
//
// The page names dependencies, commands, keys and the texts of errors, which may
// name hosts and more: serve it where only those come who may read the service's
// logs. It changes nothing by itself. For overrides and edits of the settings there is
// [Handler.Operator], a handler of its own, to be mounted apart, which asks for every
// request who is asking.
//
// # What it costs
//
// While somebody watches, every command is read and encoded once a tick, for all who
// watch together; each gets what has changed: about 320 bytes for a command with a
// short name and some traffic, nothing for an idle one. A stream costs the server a
// goroutine and its connection's buffers: the bytes it writes are shared, and there is
// no queue for a slow reader, who gets the whole of the latest picture instead, or, if
// nothing could be written for ten seconds, is dropped. [Options] bounds how many
// streams, commands and remembered events there are; texts and names that others made
// are cut at 1000 bytes.
//
// What the page draws over two and over fifteen minutes it has seen itself: its history
// is in the browser, and begins when the page is opened. A browser has six connections
// to a host that does not speak HTTP/2, for all its tabs together, and each page that
// is open takes one.
package dashboard
