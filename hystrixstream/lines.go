package hystrixstream

import (
	"time"

	"github.com/firebreak-go/firebreak"
)

// What follows is the wire format. The order of the fields is the original's.

// encodeDashboard appends a sample of hystrix.stream: commands, each with its batches
// if it has had any, then pools.
func encodeDashboard(e *encoder, reg *firebreak.Registry) {
	for r := range e.commands(reg) {
		e.hystrixCommand(r)
		if r.Total.Batches > 0 {
			e.hystrixCollapser(r)
		}
	}
	for i := range e.pools {
		e.hystrixThreadPool(&e.pools[i])
	}
}

func (e *encoder) hystrixCommand(r *reading) {
	c, w := &r.config, &r.Window
	e.begin()
	e.string("type", "HystrixCommand")
	e.string("name", r.name)
	e.string("group", r.Dependency)
	e.long("currentTime", millis(r.Time))

	e.bool("isCircuitBreakerOpen", r.open())
	bad, all, percentage := r.health()
	e.int("errorPercentage", percentage)
	e.int("errorCount", int64(bad))
	e.int("requestCount", int64(all))

	e.long("rollingCountBadRequests", r.badRequests())
	e.long("rollingCountCollapsedRequests", w.Collapsed)
	e.long("rollingCountEmit", w.Emitted)
	e.long("rollingCountExceptionsThrown", r.thrown())
	e.long("rollingCountFailure", r.failures())
	e.long("rollingCountFallbackEmit", 0)
	e.long("rollingCountFallbackFailure", w.FallbackFailure)
	e.long("rollingCountFallbackMissing", w.FallbackMissing)
	e.long("rollingCountFallbackRejection", w.FallbackRejected)
	e.long("rollingCountFallbackSuccess", w.FallbackSuccess)
	e.long("rollingCountResponsesFromCache", w.CacheHits)
	e.long("rollingCountSemaphoreRejected", r.semaphoreRejected())
	e.long("rollingCountShortCircuited", w.ShortCircuited)
	e.long("rollingCountSuccess", w.Success)
	e.long("rollingCountThreadPoolRejected", r.poolRejected())
	e.long("rollingCountTimeout", r.timeouts())

	e.int("currentConcurrentExecutionCount", int64(r.InFlight))
	e.int("rollingMaxConcurrentExecutionCount", int64(r.MaxInFlight))
	e.latencies("latencyExecute", &r.RunLatency)
	e.latencies("latencyTotal", &r.CallLatency)

	e.int("propertyValue_circuitBreakerRequestVolumeThreshold", int64(c.RequestVolumeThreshold))
	e.setting("propertyValue_circuitBreakerSleepWindowInMilliseconds", c.SleepWindow)
	e.int("propertyValue_circuitBreakerErrorThresholdPercentage", r.errorThreshold())
	e.bool("propertyValue_circuitBreakerForceOpen", r.forcedOpen())
	e.bool("propertyValue_circuitBreakerForceClosed", r.forcedClosed())
	e.bool("propertyValue_circuitBreakerEnabled", r.enabled())
	e.string("propertyValue_executionIsolationStrategy", r.strategy())
	e.setting("propertyValue_executionIsolationThreadTimeoutInMilliseconds", c.Timeout)
	e.setting("propertyValue_executionTimeoutInMilliseconds", c.Timeout)
	e.bool("propertyValue_executionIsolationThreadInterruptOnTimeout", r.interrupts())
	e.null("propertyValue_executionIsolationThreadPoolKeyOverride")
	e.limit("propertyValue_executionIsolationSemaphoreMaxConcurrentRequests", c.MaxConcurrent)
	e.limit("propertyValue_fallbackIsolationSemaphoreMaxConcurrentRequests", c.MaxFallbacks)
	e.setting("propertyValue_metricsRollingStatisticalWindowInMilliseconds", c.Window)
	e.bool("propertyValue_requestCacheEnabled", false)
	e.bool("propertyValue_requestLogEnabled", c.RequestLog == firebreak.On)
	e.int("reportingHosts", 1)
	e.string("threadPool", r.Dependency)
	e.finish()
}

func (e *encoder) hystrixCollapser(r *reading) {
	c, w := &r.config, &r.Window
	e.begin()
	e.string("type", "HystrixCollapser")
	e.string("name", r.name)
	e.long("currentTime", millis(r.Time))
	e.long("rollingCountRequestsBatched", w.Collapsed)
	e.long("rollingCountBatches", w.Batches)
	e.long("rollingCountResponsesFromCache", w.CacheHits)
	e.sizes("batchSize", &r.BatchSizes)
	e.bool("propertyValue_requestCacheEnabled", false)
	e.limit("propertyValue_maxRequestsInBatch", c.MaxBatch)
	e.setting("propertyValue_timerDelayInMilliseconds", c.BatchWindow)
	e.int("reportingHosts", 1)
	e.finish()
}

func (e *encoder) hystrixThreadPool(p *pool) {
	e.begin()
	e.string("type", "HystrixThreadPool")
	e.string("name", p.name)
	e.long("currentTime", millis(p.at))
	e.int("currentActiveCount", int64(p.InFlight))
	e.long("currentCompletedTaskCount", p.completed())
	e.limit("currentCorePoolSize", p.Limit)
	e.int("currentLargestPoolSize", int64(max(p.size(), p.MaxInFlight)))
	e.limit("currentMaximumPoolSize", p.Limit)
	e.int("currentPoolSize", int64(p.size()))
	e.int("currentQueueSize", int64(p.Queued))
	e.long("currentTaskCount", p.tasks())
	e.long("rollingCountThreadsExecuted", p.executed)
	e.int("rollingMaxActiveThreads", int64(p.MaxInFlight))
	e.long("rollingCountCommandRejections", p.rejected)
	e.limit("propertyValue_queueSizeRejectionThreshold", p.queueSize)
	e.setting("propertyValue_metricsRollingStatisticalWindowInMilliseconds", p.window)
	e.int("reportingHosts", 1)
	e.finish()
}

// In the registry's windows and of its latencies.
const (
	buckets           = 10
	percentileBuckets = 3
	percentileBucket  = 20 * time.Second
)

// encodeConfig appends a sample of the stream of settings, one object.
func encodeConfig(e *encoder, reg *firebreak.Registry) {
	e.begin()
	e.string("type", "HystrixConfig")
	e.object("commands")
	for r := range e.commands(reg) {
		e.commandConfig(r)
	}
	e.close()
	e.object("threadpools")
	for i := range e.pools {
		e.poolConfig(&e.pools[i])
	}
	e.close()
	e.object("collapsers") //nolint:misspell // Hystrix's word. Likewise.
	for r := range e.commands(reg) {
		if r.Total.Batches > 0 {
			e.collapserConfig(r)
		}
	}
	e.close()
	e.finish()
}

func (e *encoder) commandConfig(r *reading) {
	c := &r.config
	e.named(r.name)
	e.string("threadPoolKey", r.Dependency)
	e.string("groupKey", r.Dependency)
	e.object("execution")
	e.string("isolationStrategy", r.strategy())
	e.null("threadPoolKeyOverride")
	e.bool("requestCacheEnabled", false)
	e.bool("requestLogEnabled", c.RequestLog == firebreak.On)
	e.bool("timeoutEnabled", c.Timeout != firebreak.Off)
	e.bool("fallbackEnabled", c.MaxFallbacks != firebreak.Off)
	e.setting("timeoutInMilliseconds", c.Timeout)
	e.limit("semaphoreSize", c.MaxConcurrent)
	e.limit("fallbackSemaphoreSize", c.MaxFallbacks)
	e.bool("threadInterruptOnTimeout", r.interrupts())
	e.close()
	e.object("metrics")
	e.setting("healthBucketSizeInMs", c.Window/buckets)
	e.setting("percentileBucketSizeInMilliseconds", percentileBucket)
	e.int("percentileBucketCount", percentileBuckets)
	e.bool("percentileEnabled", true)
	e.setting("counterBucketSizeInMilliseconds", c.Window/buckets)
	e.int("counterBucketCount", buckets)
	e.close()
	e.object("circuitBreaker")
	e.bool("enabled", r.enabled())
	e.bool("isForcedOpen", r.forcedOpen())
	e.bool("isForcedClosed", r.forcedClosed())
	e.int("requestVolumeThreshold", int64(c.RequestVolumeThreshold))
	e.int("errorPercentageThreshold", r.errorThreshold())
	e.setting("sleepInMilliseconds", c.SleepWindow)
	e.close()
	e.close()
}

func (e *encoder) collapserConfig(r *reading) {
	c := &r.config
	e.named(r.name)
	e.limit("maxRequestsInBatch", c.MaxBatch)
	e.setting("timerDelayInMilliseconds", c.BatchWindow)
	e.bool("requestCacheEnabled", false)
	e.object("metrics")
	e.setting("percentileBucketSizeInMilliseconds", percentileBucket)
	e.int("percentileBucketCount", percentileBuckets)
	e.bool("percentileEnabled", true)
	e.setting("counterBucketSizeInMilliseconds", c.Window/buckets)
	e.int("counterBucketCount", buckets)
	e.close()
	e.close()
}

func (e *encoder) poolConfig(p *pool) {
	e.named(p.name)
	e.limit("coreSize", p.Limit)
	e.limit("maximumSize", p.Limit)
	e.limit("actualMaximumSize", p.Limit)
	e.int("maxQueueSize", int64(p.queueSize)) // Off is the -1 of a pool without a queue there
	e.limit("queueRejectionThreshold", p.queueSize)
	e.int("keepAliveTimeInMinutes", 0)
	e.bool("allowMaximumSizeToDivergeFromCoreSize", false)
	e.setting("counterBucketSizeInMilliseconds", p.window/buckets)
	e.int("counterBucketCount", buckets)
	e.close()
}

// encodeUtilization appends a sample of the stream of utilization, one object.
func encodeUtilization(e *encoder, reg *firebreak.Registry) {
	e.begin()
	e.string("type", "HystrixUtilization")
	e.object("commands")
	for r := range e.commands(reg) {
		e.named(r.name)
		e.int("activeCount", int64(r.InFlight))
		e.close()
	}
	e.close()
	e.object("threadpools")
	for i := range e.pools {
		p := &e.pools[i]
		e.named(p.name)
		e.int("activeCount", int64(p.InFlight))
		e.int("queueSize", int64(p.Queued))
		e.limit("corePoolSize", p.Limit)
		e.int("poolSize", int64(p.size()))
		e.close()
	}
	e.close()
	e.finish()
}

// millis is a moment as Java has it. The wall clock is not before 1970.
func millis(at time.Time) uint64 { return uint64(max(at.UnixMilli(), 0)) }
