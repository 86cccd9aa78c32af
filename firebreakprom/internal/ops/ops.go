// Package ops makes the recording rules, alerts and dashboard in ops/ from the
// definitions in package metric: a metric, label or value that is not defined there
// cannot be in them.
package ops

import (
	"os"
	"path/filepath"
)

// Files are what is generated, by path below ops/.
func Files() map[string][]byte {
	return map[string][]byte{
		"prometheus/recording.yml": RecordingsFile(),
		"prometheus/alerts.yml":    AlertsFile(),
		"grafana/firebreak.json":   NewDashboard().File(),
	}
}

// Write writes them below dir.
func Write(dir string) error {
	for name, data := range Files() {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
