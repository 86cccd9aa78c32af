// Package firebreak keeps one failing or slow dependency from taking a service down.
//
// (to be written)
package firebreak
