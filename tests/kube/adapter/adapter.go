//go:build tools

// Package adapter names what build.sh builds, so that go.mod keeps it.
package adapter

import _ "sigs.k8s.io/prometheus-adapter/cmd/adapter"
