package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path"
	"strings"
	"syscall"
)

const (
	nfsDriver       = "nfs.csi.k8s.io"
	nfsRoot         = "/srv/nfs"
	nfsSocket       = "/var/lib/kubelet/plugins/csi-nfsplugin/csi.sock"
	nfsRegistration = "/var/lib/kubelet/plugins_registry/nfs.csi.k8s.io-reg.sock"
)

// nfsNode is the half of csi-driver-nfs that mounts. There is no NFS server: the hosts share one folder, and what the
// server would export lies in it below the share's own path.
func nfsNode(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 2)
	go func() { ended <- serveGrpc(ctx, nfsSocket, nodeCalls(os.Getenv("NODE_ID"))) }()
	go func() { ended <- serveGrpc(ctx, nfsRegistration, registrationCalls()) }()
	log.Printf("%s, csi-nfs-node: %s", says, nfsSocket)
	err := <-ended
	stop()
	return errors.Join(err, <-ended)
}

// registrationCalls is how the kubelet gets to know the driver.
func registrationCalls() map[string]call {
	return map[string]call{
		"/pluginregistration.Registration/GetInfo": func([]byte) ([]byte, error) {
			answer := putBytes(nil, 1, []byte("CSIPlugin"))
			answer = putBytes(answer, 2, []byte(nfsDriver))
			answer = putBytes(answer, 3, []byte(nfsSocket))
			return putBytes(answer, 4, []byte("1.0.0")), nil
		},
		"/pluginregistration.Registration/NotifyRegistrationStatus": func(request []byte) ([]byte, error) {
			status, err := parse(request)
			if err == nil && !status.truth(1) {
				log.Printf("the kubelet refused: %s", status.text(2))
			}
			return nil, err
		},
	}
}

func nodeCalls(node string) map[string]call {
	nothing := func([]byte) ([]byte, error) { return nil, nil }
	return map[string]call{
		"/csi.v1.Identity/GetPluginInfo": func([]byte) ([]byte, error) {
			return putBytes(putBytes(nil, 1, []byte(nfsDriver)), 2, []byte(version)), nil
		},
		"/csi.v1.Identity/GetPluginCapabilities": nothing,
		"/csi.v1.Identity/Probe": func([]byte) ([]byte, error) {
			return putBytes(nil, 1, putTrue(nil, 1)), nil
		},
		"/csi.v1.Node/NodeGetInfo": func([]byte) ([]byte, error) {
			return putBytes(nil, 1, []byte(node)), nil
		},
		"/csi.v1.Node/NodeGetCapabilities": nothing,
		"/csi.v1.Node/NodePublishVolume":   func(request []byte) ([]byte, error) { return nil, publish(request) },
		"/csi.v1.Node/NodeUnpublishVolume": func(request []byte) ([]byte, error) { return nil, unpublish(request) },
	}
}

// publish binds the folder of a volume to where a pod wants it.
func publish(request []byte) error {
	asked, err := parse(request)
	if err != nil {
		return &failure{grpcInvalid, err.Error()}
	}
	attributes, err := asked.texts(8)
	if err != nil {
		return &failure{grpcInvalid, err.Error()}
	}
	target := asked.text(4)
	if attributes["server"] == "" || attributes["share"] == "" || target == "" {
		return &failure{grpcInvalid, "server, share and target path are needed"}
	}
	source := nfsFolder(nfsRoot, attributes)
	if err := sharedFolder(nfsRoot, source); err != nil {
		return err
	}
	if err := os.MkdirAll(target, 0o750); err != nil {
		return err
	}
	if mounted, err := isMounted(target); err != nil || mounted {
		return err
	}
	if err := syscall.Mount(source, target, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding %s to %s: %w", source, target, err)
	}
	if asked.truth(6) {
		return syscall.Mount("", target, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
	}
	return nil
}

// nfsFolder is where the share lies, and never outside of root.
func nfsFolder(root string, attributes map[string]string) string {
	return path.Join(root, path.Join("/", attributes["share"], path.Join("/", attributes["subdir"])))
}

// sharedFolder makes a folder below root, with everything on the way to it, that every user may write to.
func sharedFolder(root, folder string) error {
	at := root
	for _, part := range strings.Split(strings.TrimPrefix(folder, root), "/") {
		at = path.Join(at, part)
		err := os.Mkdir(at, 0o777)
		if err == nil {
			err = os.Chmod(at, 0o777) // whatever the umask is
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

func unpublish(request []byte) error {
	asked, err := parse(request)
	if err != nil || asked.text(2) == "" {
		return &failure{grpcInvalid, "a target path is needed"}
	}
	target := asked.text(2)
	if mounted, err := isMounted(target); err != nil {
		return err
	} else if mounted {
		if err := syscall.Unmount(target, 0); err != nil {
			return fmt.Errorf("unmounting %s: %w", target, err)
		}
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// isMounted says whether something is mounted exactly there.
func isMounted(target string) (bool, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && fields[4] == target {
			return true, nil
		}
	}
	return false, lines.Err()
}
