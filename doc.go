// Package firebreak keeps one failing or slow dependency from taking a service
// down. A [Command] runs each call to a dependency through a bulkhead (semaphore or
// goroutine pool), a rolling-window circuit breaker, a timeout and a fallback, and
// shows how the dependency is doing.
//
//	reg := firebreak.NewRegistry(firebreak.Config{Timeout: time.Second})    // defaults for all
//	users := reg.Dependency("users", firebreak.Config{MaxConcurrent: 20})   // one bulkhead
//	getUser := users.Command("users.get", firebreak.Config{})               // one circuit, one timeout
//
//	u, err := firebreak.Do(ctx, getUser, func(ctx context.Context) (User, error) {
//		return api.User(ctx, id)
//	}, fromCache, firebreak.Static(Guest))
//
// # Commands
//
// A [Registry] holds a service's dependencies and commands. A [Dependency] is what
// is called, and has one bulkhead; a Command is one operation of it, and has one
// circuit, one timeout, counts and latencies of its own. Where the two are one,
// [Registry.Command] makes both. [Dependency.Keyed] makes a command for each host,
// tenant or shard, a bounded number of them. Make handles once, at start; nothing is
// looked up by name at a call.
//
// # Calls
//
// A Command knows no result type. [Do] is generic, so a command serves any number
// of them; [Command.Run] is Do without a result; [Bind] turns a client's method
// into a guarded one of the same type; [Command.Begin] is for work that does not
// fit in a function. Each call ends in exactly one [Outcome]:
//
//  1. The settings are loaded, once. A context that is over already ends the call.
//  2. The circuit admits the call, or short-circuits it.
//  3. The bulkhead has a permit for it, at once or within [Config.MaxWait], or
//     rejects it.
//  4. run is called, under a context that ends at the sooner of the caller's
//     deadline and the command's.
//  5. The verdict: the outcome is counted, the circuit told, the permit given back
//     when the work has really ended, also after a panic or runtime.Goexit.
//  6. Fallbacks are asked, if the outcome wants one. Then the caller has its answer.
//
// Under [SemaphoreIsolation], the default, run is called on the caller's goroutine:
// no goroutine, no race, but run must heed its context. Under [PoolIsolation] it is
// called on a worker, and the caller leaves at its deadline whatever run does.
//
// # Fallbacks
//
// A [Fallback] answers in place of a call that failed, timed out or was refused;
// [Static] and [Stale] make two common ones, any function makes others. They are
// asked in order. An error that is [Expected] or [Ignored] and a panic ask for none;
// nor does a call that its caller's context ended, by a cancel or by a deadline
// sooner than the command's: keep Timeout below the callers' deadlines.
//
// # Errors
//
// The error of run comes back as it is. Errors of a call's own are one type,
// [*Error], and match [ErrOpen], [ErrRejected], [ErrTimeout], [ErrShutdown] or
// [ErrFailed]. What an error of run's says about the dependency is decided by
// [Config.Classify] where the command is made, or by [Mark] and [RetryAfter] where
// the error is.
//
// # Settings
//
// One struct, [Config], serves registry, dependency and command; what a level does
// not say comes from the next. [Registry.Update] puts a [Document] (JSON or YAML)
// above the code at run time, all of it or nothing. [Command.Config] and
// [Command.Origins] read back what holds, and who said it. [Command.Override] is an
// operator's hand on one circuit.
//
// # Fan-out
//
// A request that needs many dependencies asks them at once. [Go] is Do on another
// goroutine, and its [Future] the result; [Gather] asks for many keys, a bounded number
// at a time; [Collapse] makes one call of keys that are asked for one by one; [Stream]
// guards a sequence. [WithScope] begins a request: in it [Cached] asks for a key once,
// and [RequestLog] tells what the calls did.
//
// # Watching
//
// [Command.Snapshot] is everything a page or a collector shows of a command, as one
// consistent value. [Registry.Observe] tells of transitions and outcomes as they
// happen. The package does not log.
//
// # Time
//
// All time is monotonic, and read through package time: code that uses this package
// can be tested in [testing/synctest] bubbles. There is no background goroutine and
// no global state.
//
// # Tests
//
// Package firebreaktest has a registry for a test, forces outcomes, opens circuits
// and tells in order what happened. In a bubble of [testing/synctest] timeouts and
// sleep windows take no time and are exact. Package chaos injects faults into commands
// of a service that runs. Both are made of [Override], and so can be what they lack.
package firebreak
