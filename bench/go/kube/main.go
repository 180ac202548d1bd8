// Command kube is every Kubernetes program that the bench needs, in one file: the one to be is named
// by the link it was started through (kube-apiserver) or by its first argument (kube apiserver).
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	_ "time/tzdata"
	_ "unsafe" // for go:linkname

	"github.com/spf13/cobra"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/component-base/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// told is the release that these programs shall say they are, so that an upgrade between patch releases can be watched
// where only one of them is built. What they do stays the same.
const told = "BENCH_KUBE_VERSION"

// gitVersion is what the linker has set; component-base lets a version be changed only within one patch release.
//
//go:linkname gitVersion k8s.io/component-base/version.gitVersion
var gitVersion string

func pretend(release string) error {
	if release == "" {
		return nil
	}
	gitVersion = release
	return version.SetDynamicVersion(release)
}

func command(name string) *cobra.Command {
	switch name {
	case "apiserver":
		return apiserver.NewAPIServerCommand()
	case "controller-manager":
		return manager.NewControllerManagerCommand()
	case "scheduler":
		return scheduler.NewSchedulerCommand()
	case "proxy":
		return proxy.NewProxyCommand()
	case "kubelet", "let":
		return kubelet.NewKubeletCommand(context.Background())
	}
	return nil
}

func main() {
	if err := pretend(os.Getenv(told)); err != nil {
		fmt.Fprintln(os.Stderr, "kube:", err)
		os.Exit(2)
	}
	name := filepath.Base(os.Args[0])
	if name == "kube" && len(os.Args) > 1 {
		os.Args = os.Args[1:]
		name = os.Args[0]
	}
	name = strings.TrimPrefix(name, "kube-")
	if name == "kubectl" || name == "ctl" {
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			util.CheckErr(err)
		}
		return
	}
	program := command(name)
	if program == nil {
		fmt.Fprintln(os.Stderr, "usage: kube apiserver|controller-manager|scheduler|kubelet|proxy|kubectl ...")
		os.Exit(2)
	}
	os.Exit(cli.Run(program))
}
