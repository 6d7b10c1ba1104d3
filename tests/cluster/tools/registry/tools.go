//go:build tools

// Package tools pins the image registry of the node tier.
package tools

import _ "github.com/distribution/distribution/v3/cmd/registry"
