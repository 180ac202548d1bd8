package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"funoffshore.bench/k3s/internal/child"
	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/paths"
)

// containerdConfig is for containerd 2: cgroupfs, overlay, Debian's runc and CNI plugins.
const containerdConfig = `# Written by funoffshore's bench stand-in for K3s.
version = 3
root = "{{.Root}}"
state = "{{.State}}"

[grpc]
  address = "{{.Socket}}"

[plugins.'io.containerd.internal.v1.opt']
  path = "{{.Root}}"

[plugins.'io.containerd.nri.v1.nri']
  disable = true

[plugins.'io.containerd.cri.v1.images']
  snapshotter = "{{.Snapshotter}}"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{{.Pause}}"

[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = "{{.Registries}}"

[plugins.'io.containerd.cri.v1.runtime']
  enable_selinux = false
  disable_apparmor = true
  restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]
  conf_dir = "{{.CNI}}"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = false
  BinaryName = "{{.Runc}}"
`

// runc is the host's wrapper for machines without CAP_SYS_RESOURCE where there is one, else Debian's own.
func runc() string {
	if wrapper := "/usr/local/lib/bench/runc"; paths.Exists(wrapper) {
		return wrapper
	}
	return "/usr/sbin/runc"
}

func (a *Agent) search() string {
	return "PATH=" + a.Paths.Bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

func (a *Agent) writeContainerd() (string, error) {
	var text bytes.Buffer
	err := template.Must(template.New("").Parse(containerdConfig)).Execute(&text, map[string]string{
		"Root": a.Paths.Agent("containerd"), "State": filepath.Dir(a.Paths.Socket()), "Socket": a.Paths.Socket(),
		"Snapshotter": a.Settings.Text("snapshotter", "overlayfs"),
		"Pause":       a.Settings.Text("pause-image", "rancher/mirrored-pause:3.6"),
		"Registries":  a.Paths.Agent("etc", "containerd", "certs.d"), "CNI": a.Paths.Agent("etc", "cni", "net.d"),
		"Runc": runc(),
	})
	if err != nil {
		return "", err
	}
	if err := a.writeRegistries(); err != nil {
		return "", err
	}
	path := a.Paths.Agent("etc", "containerd", "config.toml")
	return path, paths.Write(path, text.Bytes(), 0o644)
}

// startContainerd runs containerd, waits for its socket and imports the images that lie in agent/images.
func (a *Agent) startContainerd(ctx context.Context) error {
	config, err := a.writeContainerd()
	if err != nil {
		return err
	}
	shims, err := unpackShim(a.Paths)
	if err != nil {
		return err
	}
	if err := paths.Folder(filepath.Dir(a.Paths.Socket()), 0o711); err != nil {
		return err
	}
	name := a.Paths.Agent("containerd", "containerd.log")
	log, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	a.Journal.Info("Logging containerd to %s", name)
	_, err = a.Children.Start(child.Spec{
		Name: "containerd", Argv: []string{filepath.Join(a.Paths.Bin, "containerd"), "-c", config},
		Env: []string{strings.Replace(a.search(), "=", "="+shims+":", 1), "GOMEMLIMIT=200MiB"}, Log: log,
	})
	if err != nil {
		return err
	}
	said := time.Now()
	for {
		connection, err := (&net.Dialer{}).DialContext(ctx, "unix", a.Paths.Socket())
		if err == nil {
			_ = connection.Close()
			break
		}
		if time.Since(said) > 5*time.Second {
			said = time.Now()
			a.Journal.Info("Waiting for containerd startup: %v", err)
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	_ = os.Chmod(a.Paths.Socket(), 0o660)
	a.importImages(ctx)
	return nil
}

func (a *Agent) importImages(ctx context.Context) {
	files, _ := filepath.Glob(a.Paths.Agent("images", "*.tar*"))
	for _, file := range files {
		command := exec.CommandContext(ctx, filepath.Join(a.Paths.Bin, "ctr"), "--address", a.Paths.Socket(),
			"-n", "k8s.io", "images", "import", file)
		if output, err := command.CombinedOutput(); err != nil {
			a.Journal.Error("Failed to import %s: %v: %s", file, err, bytes.TrimSpace(output))
			continue
		}
		a.Journal.Info("Imported images from %s", file)
	}
}

// startKubelet runs the kubelet and waits until it says that it is healthy.
func (a *Agent) startKubelet(ctx context.Context) error {
	config, err := a.writeKubelet()
	if err != nil {
		return err
	}
	flags := []string{
		"--config=" + config,
		"--hostname-override=" + a.Node,
		"--kubeconfig=" + a.Paths.Agent("kubelet.kubeconfig"),
		"--node-ip=" + a.Address,
	}
	running, err := a.run("kubelet", flags, "kubelet-arg")
	if err != nil {
		return err
	}
	for {
		if err := healthy(ctx); err == nil {
			return nil
		}
		select {
		case <-running.Done(): // the group of children says why
			<-ctx.Done()
			return ctx.Err()
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
}

func healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:10248/healthz", nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	return nil
}

// startProxy runs kube-proxy.
func (a *Agent) startProxy() error {
	config, err := a.writeProxy()
	if err != nil {
		return err
	}
	_, err = a.run("kube-proxy", []string{"--config=" + config, "--hostname-override=" + a.Node}, "kube-proxy-arg")
	return err
}

// run starts one program of the multi-call binary; the operator's "key=value" of the setting key win.
func (a *Agent) run(name string, flags []string, key string) (*child.Child, error) {
	extra := a.Settings.List(key)
	for _, pair := range extra {
		given, _, _ := strings.Cut(strings.TrimLeft(pair, "-"), "=")
		flags = slices.DeleteFunc(flags, func(flag string) bool { return strings.HasPrefix(flag, "--"+given+"=") })
	}
	for _, pair := range extra {
		flags = append(flags, "--"+strings.TrimLeft(pair, "-"))
	}
	a.Journal.Info("Running %s %s", name, strings.Join(flags, " "))
	return a.Children.Start(child.Spec{
		Name: name, Argv: append([]string{filepath.Join(a.Paths.Bin, "kube")}, flags...), Title: name,
		Env:   []string{a.search(), "GOMEMLIMIT=250MiB", child.KubeVersion + "=" + a.Version},
		Noise: child.ChatterUnless(a.Settings.Bool("debug")),
	})
}

func sleep(ctx context.Context, pause time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pause):
		return nil
	}
}

// resolver is the host's list of name servers; the stub of systemd-resolved is of no use in pods.
func (a *Agent) resolver() string {
	if told := a.Settings.Text("resolv-conf", ""); told != "" {
		return told
	}
	for _, path := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		content, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(content)) {
			fields := strings.Fields(line)
			if len(fields) == 2 && fields[0] == "nameserver" && !strings.HasPrefix(fields[1], "127.") {
				return path
			}
		}
	}
	return "/etc/resolv.conf"
}

// taints are node-taint as the kubelet takes them: key[=value]:effect.
func (a *Agent) taints() ([]any, error) {
	found := []any{}
	for _, text := range a.Settings.List("node-taint") {
		pair, effect, ok := strings.Cut(text, ":")
		if !ok {
			return nil, journal.Shutdownf("kubelet exited: invalid taint spec: %s", text)
		}
		key, value, _ := strings.Cut(pair, "=")
		found = append(found, map[string]any{"key": key, "value": value, "effect": effect})
	}
	return found, nil
}

func ensureForwarding() error {
	const path = "/proc/sys/net/ipv4/ip_forward"
	if there, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(there)) == "1" {
		return nil
	}
	if err := os.WriteFile(path, []byte("1\n"), 0o644); err != nil {
		return fmt.Errorf("forwarding stays off: %w", err)
	}
	return nil
}
