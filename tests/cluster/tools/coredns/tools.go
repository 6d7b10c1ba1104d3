//go:build tools

// Package tools pins the DNS server of the node tier.
package tools

import _ "github.com/coredns/coredns"
