// Package digest says which algorithm the digests of artifacts are made with.
package digest

import (
	_ "crypto/sha256" // registers sha256
	_ "crypto/sha512" // registers sha384 and sha512
	"fmt"

	"github.com/opencontainers/go-digest"
)

// Canonical is the algorithm of new artifacts. The controller sets it once, from its flag.
var Canonical = digest.SHA256

// AlgorithmForName is the algorithm called so, or an error if this program has none.
func AlgorithmForName(name string) (digest.Algorithm, error) {
	algorithm := digest.Algorithm(name)
	if !algorithm.Available() {
		return "", fmt.Errorf("digest algorithm '%s': %w", name, digest.ErrDigestUnsupported)
	}
	return algorithm, nil
}
