package scenario

import (
	"syscall"
	"time"
)

// processTime is the processor time that the process has had.
func processTime() time.Duration { return processorTime(syscall.RUSAGE_SELF) }

// threadTime is that of the calling thread.
func threadTime() time.Duration { return processorTime(syscall.RUSAGE_THREAD) }

func processorTime(who int) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		panic(err) // who is wrong, or the pointer
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
