//go:build tools

// Package tools pins KWOK, which plays the kubelet where there is no node.
package tools

import _ "sigs.k8s.io/kwok/cmd/kwok"
