package firebreak

// What tests from outside the package can neither bring about at will nor see:
// processors that collide in a command's metrics, and what a family still keeps.

// Collide has all calls of cmd that end find their cell's lock taken, as long as
// cmd has one cell and until release is called. A Snapshot waits for that.
func Collide(cmd *Command) (release func()) {
	cmd.metrics.base.mu.Lock()
	return cmd.metrics.base.mu.Unlock
}

// Cells is how many cells the metrics of cmd have.
func Cells(cmd *Command) (n int) {
	for range cmd.metrics.cells {
		n++
	}
	return n
}

// Gone is how many commands made way for other keys of k and are still kept apart.
func Gone(k *Keyed) int {
	k.dependency.registry.mu.Lock()
	defer k.dependency.registry.mu.Unlock()
	return len(k.retired)
}

// ShutCircuit does what Shutdown does first, for one command.
func ShutCircuit(cmd *Command) { cmd.circuit.shut(cmd.clock.Now()) }
