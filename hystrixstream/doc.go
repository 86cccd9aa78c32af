// Package hystrixstream shows a [firebreak.Registry] to the tools that were made for
// Hystrix, the Netflix dashboard and Turbine first: the same streams, in the same wire
// format.
//
//	streams := hystrixstream.New(reg, hystrixstream.Options{})
//	mux.Handle("/hystrix.stream", streams)
//	mux.Handle("/hystrix/config.stream", streams.Config())
//	mux.Handle("/hystrix/utilization.stream", streams.Utilization())
//	server.RegisterOnShutdown(streams.Close) // Shutdown would wait for them for ever
//
// The streams name dependencies, commands and settings, and take no password: serve
// them where only operators come. The Netflix dashboard writes names into its page as
// they are. So do not show it keyed commands whose keys strangers choose. Nor does it
// forget: the card of a key that made way stays till the page is loaded again. Its
// cards of pools want names of letters, digits and ".:-_".
//
// # On the wire
//
// The answer to GET is text/event-stream without an end. Every command and every pool
// is a line of its own, `data: {…}`, with a blank line behind it, a sample being all
// commands and what batches, then all pools, by dependency, name and key. The first sample comes at
// once, and is no older than a tenth of a second; the others come every 500 ms, or 5 s
// in the stream of settings. After each, and every 500 ms between, comes `ping: `, so
// that proxies and the dashboard, whose patience is 10 s, see that somebody is there;
// with no command there are pings alone.
//
// The parameter delay is how many milliseconds lie between samples. It is a whole
// number without a sign, taken into the range from 100 to 60000 and up to a whole tenth
// of a second; empty, it is as if it were not there. Anything else, and a query that
// cannot be read, is answered with 400 Bad Request. (Hystrix itself read delay until
// 1.5.4, and what it could not read as 500.) All clients' samples come at the same
// moments, tenths of a second, so that one sample serves all of them.
//
// HEAD is answered as GET is, without a stream; other methods with 405 Method Not
// Allowed. Whoever is one client too many has 503 Service Unavailable and the original's
// text, "MaxConcurrentConnections reached: 5"; after [Handler.Close] or
// [firebreak.Registry.Shutdown] that is "Service has been shut down.".
//
// # HystrixCommand
//
// For each command, in the order of the wire. Durations are whole milliseconds: what
// was measured is rounded down, as there, what was set is rounded up, so that 0 is Off
// alone. What Hystrix has as an int stops at 2147483647, which also stands for Unlimited.
// Rolling counts are [firebreak.Snapshot].Window.
//
//	name                                   Command.Name, with the key: web.get[a.example]
//	group, threadPool                      Dependency
//	currentTime                            Time
//	isCircuitBreakerOpen                   State is open or half-open
//	errorPercentage                        errorCount of requestCount, rounded down; 0 without requests
//	errorCount                             what the circuit takes for bad: Failure + Panic + Timeout, CallerDeadline
//	                                       under CountCallerDeadlines, Rejected under CountRejections
//	requestCount                           errorCount + Success + Expected
//	rollingCountBadRequests                Expected + Ignored: no failure, no fallback
//	rollingCountCollapsedRequests          Collapsed
//	rollingCountEmit                       Emitted
//	rollingCountExceptionsThrown           BadRequests + FallbackFailure + FallbackMissing + FallbackRejected, and
//	                                       Panic unless RecoverPanics, as no fallback is asked then
//	rollingCountFailure                    Failure + Panic
//	rollingCountFallbackEmit               0
//	rollingCountFallbackFailure            FallbackFailure
//	rollingCountFallbackMissing            FallbackMissing
//	rollingCountFallbackRejection          FallbackRejected
//	rollingCountFallbackSuccess            FallbackSuccess
//	rollingCountResponsesFromCache         CacheHits
//	rollingCountSemaphoreRejected          Rejected by a semaphore
//	rollingCountShortCircuited             ShortCircuited
//	rollingCountSuccess                    Success
//	rollingCountThreadPoolRejected         Rejected by a pool
//	rollingCountTimeout                    Timeout; with CallerDeadline under CountCallerDeadlines
//	currentConcurrentExecutionCount        InFlight
//	rollingMaxConcurrentExecutionCount     MaxInFlight
//	latencyExecute_mean, latencyExecute    RunLatency
//	latencyTotal_mean, latencyTotal        CallLatency
//	propertyValue_circuitBreaker…
//	  RequestVolumeThreshold               RequestVolumeThreshold
//	  SleepWindowInMilliseconds            SleepWindow
//	  ErrorThresholdPercentage             ErrorThresholdPercentage, rounded up; 101, which none reaches, if Off
//	  ForceOpen                            Mode is ForceOpen, by Override or Config
//	  ForceClosed                          Mode is ForceClosed or Shadow, likewise
//	  Enabled                              one of the four rules is on
//	propertyValue_execution…
//	  IsolationStrategy                    THREAD for a pool, SEMAPHORE
//	  IsolationThreadTimeoutInMilliseconds Timeout, 0 if Off
//	  TimeoutInMilliseconds                the same
//	  IsolationThreadInterruptOnTimeout    Timeout is not Off: the context of run ends then
//	  IsolationThreadPoolKeyOverride       null
//	  IsolationSemaphoreMaxConcurrentRequests  MaxConcurrent
//	propertyValue_fallbackIsolationSemaphoreMaxConcurrentRequests  MaxFallbacks, 0 if Off
//	propertyValue_metricsRollingStatisticalWindowInMilliseconds    Window
//	propertyValue_requestCacheEnabled      false: it is not a setting
//	propertyValue_requestLogEnabled        RequestLog
//	reportingHosts                         1
//
// So errorCount is rollingCountFailure + rollingCountTimeout, and rejections where they
// count. All three of the health figures are of the rolling window, which goes on when
// a circuit closes; the circuit's own window begins empty then, so for the length of a
// window the percentage may be above what the circuit sees.
//
// Canceled, CallerDeadline (unless it counts) and GaveUp are in no field, as the
// original's CANCELLED was not; nor is Shutdown, with which the streams end. A
// dashboard shows Shadow as a circuit that is open, or closed, and "Forced Closed": the
// state is what the circuit would do, and nothing is refused.
//
// # HystrixCollapser
//
// Behind the line of each command that has had a batch. Batches are calls of that
// command, so its line counts them as well.
//
//	name                                    Command.Name
//	currentTime                             Time
//	rollingCountRequestsBatched             Collapsed
//	rollingCountBatches                     Batches
//	rollingCountResponsesFromCache          CacheHits
//	batchSize_mean, batchSize               BatchSizes
//	propertyValue_requestCacheEnabled       false: it is not a setting
//	propertyValue_maxRequestsInBatch        MaxBatch
//	propertyValue_timerDelayInMilliseconds  BatchWindow, whose time begins with a batch's first key
//	reportingHosts                          1
//
// # HystrixThreadPool
//
// For each dependency with pool isolation that has a command; semaphores have none, as
// there, since all that is to be said of them is in their commands' lines. They are
// shown from the first sample on, Hystrix waited for the first run. Sums are over the
// dependency's commands; those of keys that made way are no longer in them.
//
//	name                         Dependency
//	currentTime                  Time
//	currentActiveCount           Bulkhead.InFlight, runs whose caller has left among them
//	currentCompletedTaskCount    runs that ended: the sum of Total's executed, less Bulkhead.Abandoned
//	currentCorePoolSize          Bulkhead.Limit
//	currentLargestPoolSize       currentPoolSize, or Bulkhead.MaxInFlight if that is more
//	currentMaximumPoolSize       Bulkhead.Limit
//	currentPoolSize              Bulkhead.Limit, which is what there is to be had, as no worker is parked;
//	                             InFlight if that is more (the pool shrank), or there is no limit
//	currentQueueSize             Bulkhead.Queued
//	currentTaskCount             currentCompletedTaskCount + InFlight + Queued
//	rollingCountThreadsExecuted  the sum of Window's executed
//	rollingMaxActiveThreads      Bulkhead.MaxInFlight
//	rollingCountCommandRejections  the sum of Window.Rejected
//	propertyValue_queueSizeRejectionThreshold  QueueSize, 0 if Off
//	propertyValue_metricsRollingStatisticalWindowInMilliseconds  the longest Window of its commands
//	reportingHosts               1
//
// # The other two
//
// Settings ([Handler.Config]) and utilization ([Handler.Utilization]) are one object a
// sample, commands and pools by name. Where Hystrix put a wrong value into the stream
// of settings, ours has the right one: isForcedClosed is not isForcedOpen once more,
// percentileBucketCount is that of percentiles (3, of 20 s), and sizes of buckets are of
// one bucket, not of the window. keepAliveTimeInMinutes is 0, and maxQueueSize is −1
// without a queue, as there.
package hystrixstream
