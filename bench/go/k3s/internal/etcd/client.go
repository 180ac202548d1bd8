// Package etcd talks to etcd through its own JSON gateway (/v3/...), and writes its settings.
package etcd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Member of the cluster. ID is a decimal number, as the gateway writes it.
type Member struct {
	ID         string   `json:"ID"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
	IsLearner  bool     `json:"isLearner"`
}

// Node is the name of the node that runs the member: its own name without the random end.
func (m Member) Node() string {
	if i := strings.LastIndex(m.Name, "-"); i > 0 {
		return m.Name[:i]
	}
	return m.Name
}

// At is whether the member's peers find it at address.
func (m Member) At(address string) bool {
	for _, peer := range m.PeerURLs {
		if parsed, err := url.Parse(peer); err == nil && parsed.Hostname() == address {
			return true
		}
	}
	return false
}

// Client asks the endpoints one after another until one answers.
type Client struct {
	endpoints []string
	http      *http.Client
}

// NewClient logs in with the certificate in config.
func NewClient(config *tls.Config, endpoints ...string) *Client {
	transport := &http.Transport{TLSClientConfig: config, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute}
	return &Client{endpoints: endpoints, http: &http.Client{Transport: transport}}
}

// At is the same client for other endpoints.
func (c *Client) At(endpoints ...string) *Client { return &Client{endpoints: endpoints, http: c.http} }

// Members lists the cluster's members as the asked one knows them.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	var answer struct{ Members []Member }
	err := c.call(ctx, "/v3/cluster/member/list", map[string]any{"linearizable": false}, &answer)
	return answer.Members, err
}

// AddLearner announces a member that does not vote yet.
func (c *Client) AddLearner(ctx context.Context, peer string) ([]Member, error) {
	var answer struct{ Members []Member }
	request := map[string]any{"peerURLs": []string{peer}, "isLearner": true}
	err := c.call(ctx, "/v3/cluster/member/add", request, &answer)
	return answer.Members, err
}

// Promote makes a learner vote.
func (c *Client) Promote(ctx context.Context, id string) error {
	return c.call(ctx, "/v3/cluster/member/promote", map[string]any{"ID": id}, &struct{}{})
}

// Remove takes a member out of the cluster.
func (c *Client) Remove(ctx context.Context, id string) error {
	return c.call(ctx, "/v3/cluster/member/remove", map[string]any{"ID": id}, &struct{}{})
}

// Leader is the ID of the leader that the asked member knows; an error while there is none.
func (c *Client) Leader(ctx context.Context) (string, error) {
	var answer struct {
		Leader string
		Errors []string
	}
	if err := c.call(ctx, "/v3/maintenance/status", map[string]any{}, &answer); err != nil {
		return "", err
	}
	if answer.Leader == "" || answer.Leader == "0" {
		return "", errors.New("etcdserver: no leader")
	}
	return answer.Leader, nil
}

// Put writes a key.
func (c *Client) Put(ctx context.Context, key string, value []byte) error {
	request := map[string]any{"key": []byte(key), "value": value}
	return c.call(ctx, "/v3/kv/put", request, &struct{}{})
}

// Delete removes a key; one that is not there is no error.
func (c *Client) Delete(ctx context.Context, key string) error {
	return c.call(ctx, "/v3/kv/deleterange", map[string]any{"key": []byte(key)}, &struct{}{})
}

// Keys are those that begin with prefix, as the asked member alone knows them.
func (c *Client) Keys(ctx context.Context, prefix string) ([]string, error) {
	var answer struct {
		Kvs []struct{ Key []byte }
	}
	request := map[string]any{
		"key": []byte(prefix), "range_end": after(prefix), "serializable": true, "keys_only": true,
	}
	if err := c.call(ctx, "/v3/kv/range", request, &answer); err != nil {
		return nil, err
	}
	var found []string
	for _, pair := range answer.Kvs {
		found = append(found, string(pair.Key))
	}
	return found, nil
}

// after is the first key behind all that begin with prefix.
func after(prefix string) []byte {
	end := []byte(prefix)
	end[len(end)-1]++
	return end
}

// Prefix reads all values whose keys begin with prefix, from the asked member alone.
func (c *Client) Prefix(ctx context.Context, prefix string) (map[string][]byte, error) {
	var answer struct {
		Kvs []struct{ Key, Value []byte }
	}
	request := map[string]any{"key": []byte(prefix), "range_end": after(prefix), "serializable": true}
	if err := c.call(ctx, "/v3/kv/range", request, &answer); err != nil {
		return nil, err
	}
	found := map[string][]byte{}
	for _, pair := range answer.Kvs {
		found[string(pair.Key)] = pair.Value
	}
	return found, nil
}

// Snapshot writes the whole store into file, which appears only if it is whole.
func (c *Client) Snapshot(ctx context.Context, path string) error {
	body, err := c.open(ctx, "/v3/maintenance/snapshot", map[string]any{})
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	file, err := os.OpenFile(path+".part", os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(path + ".part") }()
	err = copyBlobs(file, body)
	if err == nil {
		err = intact(file)
	}
	if err == nil {
		err = file.Sync()
	}
	if shut := file.Close(); err == nil {
		err = shut
	}
	if err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}

func copyBlobs(out io.Writer, in io.Reader) error {
	answers := json.NewDecoder(bufio.NewReaderSize(in, 1<<20))
	for {
		var answer struct {
			Result struct{ Blob string }
			Error  *struct{ Message string }
		}
		if err := answers.Decode(&answer); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if answer.Error != nil {
			return errors.New(answer.Error.Message)
		}
		blob, err := base64.StdEncoding.DecodeString(answer.Result.Blob)
		if err != nil {
			return err
		}
		if _, err := out.Write(blob); err != nil {
			return err
		}
	}
}

// intact compares the SHA-256 that etcd puts behind the store.
func intact(file *os.File) error {
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil || size%512 != sha256.Size {
		return fmt.Errorf("snapshot of %d bytes has no checksum", size)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(file, 0, size-sha256.Size)); err != nil {
		return err
	}
	end := make([]byte, sha256.Size)
	if _, err := file.ReadAt(end, size-sha256.Size); err != nil {
		return err
	}
	if !bytes.Equal(end, sum.Sum(nil)) {
		return errors.New("snapshot came broken")
	}
	return nil
}

func (c *Client) call(ctx context.Context, path string, request, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	body, err := c.open(ctx, path, request)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	return json.NewDecoder(body).Decode(answer)
}

func (c *Client) open(ctx context.Context, path string, request any) (io.ReadCloser, error) {
	content, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	last := errors.New("etcd client has no endpoint")
	for _, endpoint := range c.endpoints {
		asked, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint+path, bytes.NewReader(content))
		if err != nil {
			return nil, err
		}
		answer, err := c.http.Do(asked)
		if err != nil {
			last = err
			continue
		}
		if answer.StatusCode == http.StatusOK {
			return answer.Body, nil
		}
		var refusal struct{ Message, Error string }
		_ = json.NewDecoder(io.LimitReader(answer.Body, 1<<20)).Decode(&refusal)
		_ = answer.Body.Close()
		last = errors.New(refusal.Message)
		if refusal.Message == "" {
			last = fmt.Errorf("etcd answers %s %s", answer.Status, refusal.Error)
		}
	}
	return nil, last
}
