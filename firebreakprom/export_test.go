package firebreakprom

// Keys is of how many keys of a family there is a handle.
func (c *Collector) Keys(command string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.families[command].keys)
}
