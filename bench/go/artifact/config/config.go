// Package config holds the flags of the artifact storage.
package config

import (
	"os"
	"time"

	"github.com/spf13/pflag"
)

// Options say where artifacts are kept, how they are served, and for how long.
type Options struct {
	// StoragePath is the folder of all artifacts.
	StoragePath string
	// StorageAddress is what the file server listens on, host:port.
	StorageAddress string
	// StorageAdvAddress is the host, or host:port, in the URLs of artifacts.
	StorageAdvAddress string
	// ArtifactRetentionTTL is the age from which an artifact that is not the current one goes.
	ArtifactRetentionTTL time.Duration
	// ArtifactRetentionRecords is how many artifacts of one object may stay, the current one counted.
	ArtifactRetentionRecords int
	// ArtifactDigestAlgo is the name of the algorithm for digests.
	ArtifactDigestAlgo string
}

// BindFlags adds the flags, with source-controller's names and defaults.
func (o *Options) BindFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.StoragePath, "storage-path", os.Getenv("STORAGE_PATH"), "The folder in which artifacts are kept.")
	flags.StringVar(&o.StorageAddress, "storage-addr", environment("STORAGE_ADDR", ":9090"),
		"The address that the file server of artifacts binds to.")
	flags.StringVar(&o.StorageAdvAddress, "storage-adv-addr", os.Getenv("STORAGE_ADV_ADDR"),
		"The address in the URLs of artifacts; the host's name if empty.")
	flags.DurationVar(&o.ArtifactRetentionTTL, "artifact-retention-ttl", time.Minute,
		"How long an artifact that is no longer the current one may stay.")
	flags.IntVar(&o.ArtifactRetentionRecords, "artifact-retention-records", 2,
		"How many artifacts of one object may stay.")
	flags.StringVar(&o.ArtifactDigestAlgo, "artifact-digest-algo", "sha256", "The algorithm for the digests of artifacts.")
}

func environment(name, otherwise string) string {
	if value, set := os.LookupEnv(name); set {
		return value
	}
	return otherwise
}
