// Package itest holds the tests of firebreak that need a real browser. It is a module
// of its own, so that nobody who uses firebreak gets the driver.
//
// Debian's package chromium serves. Without it the tests are skipped, or fail if CI is
// true. FIREBREAK_ARTIFACTS names a directory to keep the screenshots in.
package itest
