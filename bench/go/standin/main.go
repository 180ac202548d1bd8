// Program standin is what the bench runs in containers instead of programs that it cannot have: applications, kube-vip,
// provisioners, operators. It is called by their names and does the little that others rely on.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

const (
	version = "1"
	says    = "funoffshore's bench stand-in"
)

func main() {
	role, args := roleOf(os.Args)
	for _, arg := range args {
		if arg == "--version" {
			fmt.Printf("%s %s, playing %s; not the original\n", says, version, role)
			return
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := play(ctx, role); err != nil {
		fmt.Fprintf(os.Stderr, "%s, %s: %v\n", says, role, err)
		stop()
		os.Exit(1)
	}
}

// roleOf says what to play: the name by which the program was called, or its first argument when that was its own.
func roleOf(argv []string) (string, []string) {
	role, args := filepath.Base(argv[0]), argv[1:]
	if role == "standin" && len(args) > 0 && args[0] != "--version" {
		return args[0], args[1:]
	}
	return role, args
}

func play(ctx context.Context, role string) error {
	switch role {
	case "pause", "entry":
		return pause(ctx)
	case "kube-vip":
		return inCluster(ctx, kubeVip)
	case "local-path-provisioner":
		return inCluster(ctx, localPath)
	case "csi-nfs-controller":
		return inCluster(ctx, nfsController)
	case "csi-nfs-node":
		return nfsNode(ctx)
	case "operator":
		return operate(ctx)
	case "pg_isready":
		return connects("127.0.0.1:5432")
	case "sh", "bash", "ash", "env", "true":
		fmt.Printf("%s, %s: does nothing and succeeds\n", says, role)
		return nil
	default:
		return application(ctx, role)
	}
}

// pause waits for the end and, as the first process of its namespace, buries orphans.
func pause(ctx context.Context) error {
	orphans := make(chan os.Signal, 1)
	signal.Notify(orphans, syscall.SIGCHLD)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-orphans:
			for {
				pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
				if pid <= 0 || err != nil {
					break
				}
			}
		}
	}
}
