// Package chaos makes dependencies slow, failing or silent on purpose: drills that
// show, before the real thing does, whether timeouts, circuits, bulkheads and
// fallbacks are set as they should be. A [Drill] puts a [Fault] in the place of
// commands' runs for a while, as a [firebreak.Override] with author, reason and end,
// and everybody can see it in [firebreak.Snapshot]. The dependency itself is not
// touched, nor is any other command's circuit.
//
//	slow := chaos.Chance(20, chaos.Latency(chaos.LogNormal(50*time.Millisecond, 400*time.Millisecond)))
//	stop, err := chaos.Drill{
//		Fault: slow, Reason: "ticket 123", Author: "Ada", For: 10 * time.Minute,
//	}.Start(getUser)
//	if err != nil {
//		return err
//	}
//	defer stop()
//
// # Faults
//
// [Latency] makes calls wait, by a [Distribution]; [Error], [Open], [Reject] and
// [Timeout] end them at once; [Hang] holds them until their context ends. [Chance],
// [Ramp], [Flap], [After], [Grow] and [Only] say which calls, when and how much;
// [Sequence] puts one fault after the other. A Fault is a value that says in words
// what it does, and [Parse] reads those words, so a person can type a drill while
// the service runs:
//
//	20% latency lognormal 50ms p99 400ms; 10s on 50s off 5% error "connection refused"
//
// # A drill in production
//
//   - Have it in staging first, at 100 %: what has no fallback shows there at once.
//   - Then begin small: [Chance] of a percent or less, or [Only] test traffic, for
//     minutes. Every drill has an end, and ends there without anybody's help.
//   - Begin with Mode [firebreak.Shadow]: the circuit then only counts what it would
//     have short-circuited, so no call suffers but those that the fault was meant
//     for. The next time without: an injected failure opens a circuit as a real one
//     does, and that is what you want to see. Either way, a circuit that is open when
//     the drill ends stays so until a probe succeeds.
//   - Watch [firebreak.Snapshot], of the drilled command and of those beside it:
//     FallbackMissing and FallbackFailure are the answers that users did not get.
//     Outcomes and latencies count what was injected as if the dependency had done
//     it, so tell those who are on call; the override in the same Snapshot tells who
//     looks there.
//   - Commands of the same dependency share its bulkhead, and calls that wait in a
//     drill hold permits of it: [Latency] and [Hang] can have them rejected. Other
//     dependencies are safe.
//   - Keep stop at hand. It ends the drill at once, also for the calls that wait.
//
// Faults are injected where run would be called, with the permit taken and under the
// command's timeout: what the circuit or the bulkhead refuses is refused as ever.
// So while a command is in [firebreak.ForceOpen] nothing is injected.
package chaos
