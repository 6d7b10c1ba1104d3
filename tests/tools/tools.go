//go:build tools

// Package tools pins the programs that the tests build from source.
package tools

import _ "github.com/fsouza/fake-gcs-server"
