// Command etcd is the server and both of its tools in one file: the one to be is named by the link it was
// started through (etcdctl) or by its first argument (etcd etcdctl ...). Otherwise it is the server.
package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/etcdctl/v3/ctlv3"
	"go.etcd.io/etcd/etcdutl/v3/etcdutl"
	"go.etcd.io/etcd/pkg/v3/cobrautl"
	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	name := filepath.Base(os.Args[0])
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "etcd", "etcdctl", "etcdutl":
			os.Args = os.Args[1:]
			name = os.Args[0]
		}
	}
	switch name {
	case "etcdctl":
		ctlv3.MustStart()
	case "etcdutl":
		cobra.EnablePrefixMatching = true
		if err := utl().Execute(); err != nil {
			cobrautl.ExitWithError(cobrautl.ExitError, err)
		}
	default:
		etcdmain.Main(os.Args)
	}
}

// utl puts etcdutl's commands together; upstream does so in its main package, which cannot be imported.
func utl() *cobra.Command {
	root := &cobra.Command{Use: "etcdutl", Short: "Works on the files of an etcd that is not running."}
	flags := root.PersistentFlags()
	flags.DurationVar(&etcdutl.FlockTimeout, "timeout", 10*time.Second, "how long to wait for the lock on the file, 0: for ever")
	flags.StringVarP(&etcdutl.OutputFormat, "write-out", "w", "simple", "fields, json, protobuf, simple or table")
	root.AddCommand(
		etcdutl.NewDefragCommand(),
		etcdutl.NewHashKVCommand(),
		etcdutl.NewMigrateCommand(),
		etcdutl.NewSnapshotCommand(),
		etcdutl.NewVersionCommand(),
	)
	return root
}
