//go:build tools

// Package tools pins the etcd below the tests' apiserver.
package tools

import _ "go.etcd.io/etcd/server/v3"
