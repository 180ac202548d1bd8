package server

import (
	"cmp"
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"funoffshore.bench/k3s/internal/client"
	"funoffshore.bench/k3s/internal/etcd"
	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/paths"
	"funoffshore.bench/k3s/internal/token"
)

const (
	failed   = "Error: preparing server: failed to bootstrap cluster data: "
	checking = failed + "failed to check if bootstrap data has been initialized: failed to validate token: "
)

// enter gets the authorities and the passwords onto the disk: of a new cluster, of the one to join, or of the one whose
// data lies here already. Says whether it founds.
func (s *Server) enter(ctx context.Context) (founds bool, err error) {
	told, err := Told(s.set, "token")
	if err != nil {
		return false, err
	}
	switch url := s.set.Text("server", ""); {
	case etcd.Exists(s.paths):
		return false, s.comeBack(ctx, told)
	case url != "" && told != "":
		return false, s.join(ctx, url, told)
	}
	if !s.set.Bool("cluster-init") {
		s.say.Warn("without cluster-init a real K3s uses SQLite here; this stand-in founds a cluster on etcd")
	}
	return true, s.found(told)
}

// Told is a secret from its flag or from the file that <flag>-file names; empty when neither is there.
func Told(set interface{ Text(string, string) string }, key string) (string, error) {
	if file := set.Text(key+"-file", ""); file != "" && key == "token" || set.Text(key, "") == "" && file != "" {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", journal.Fatalf("Error: %v", err)
		}
		return strings.TrimSpace(string(content)), nil
	}
	return set.Text(key, ""), nil
}

func (s *Server) found(told string) error {
	s.say.Info("Managed etcd cluster initializing")
	password := cmp.Or(token.Password(told), s.readPasswd()["server"], token.Hex(16))
	if err := s.invent(); err != nil {
		return journal.Fatalf("Error: preparing server: %v", err)
	}
	return s.takePasswords(password, password)
}

// takePasswords sets the server's password and what agents say: the configured agent token, else fallback.
func (s *Server) takePasswords(password, fallback string) error {
	told, err := Told(s.set, "agent-token")
	if err != nil {
		return err
	}
	s.passwords.set(password, cmp.Or(token.Password(told), fallback))
	return nil
}

func (s *Server) join(ctx context.Context, url, told string) error {
	door, err := client.Open(ctx, url, told, "server")
	if err != nil {
		return journal.Fatalf("%s%v", checking, err)
	}
	if door.Bare {
		s.say.Warn("%s", client.Bare)
	}
	if err := s.compare(ctx, url, told); err != nil {
		return err
	}
	data := bootstrap{}
	if err := door.JSON(ctx, "/v1-k3s/server-bootstrap", &data); err != nil {
		var refusal client.Refusal
		if errors.As(err, &refusal) && refusal.Code < 500 {
			return journal.Fatalf("%s%v", failed, err)
		}
		return journal.Fatalf("%sfailed to get bootstrap data: %v", failed, err)
	}
	if err := s.spread(data); err != nil {
		return journal.Fatalf("%s%v", failed, err)
	}
	return s.takePasswords(token.Password(told), s.readPasswd()["node"])
}

// compare looks at the critical settings of the cluster, as a node of it.
func (s *Server) compare(ctx context.Context, url, told string) error {
	agent, err := Told(s.set, "agent-token")
	if err != nil {
		return err
	}
	if parsed, err := token.Parse(told); err == nil && agent != "" && parsed.Hash != "" {
		agent = "K10" + parsed.Hash + "::node:" + token.Password(agent)
	}
	if agent == "" {
		agent = told
	}
	var theirs Critical
	door, err := client.Open(ctx, url, agent, "node")
	if err == nil {
		err = door.JSON(ctx, "/v1-k3s/config", &theirs)
	}
	if err != nil {
		s.say.Warn("Skipping cluster configuration validation: %v", err)
		return nil
	}
	different := s.critical.differences(theirs)
	for _, name := range different {
		s.say.Warn("critical configuration mismatched: %s", name)
	}
	if len(different) > 0 {
		const problem = "critical configuration value mismatch between servers"
		return journal.Fatalf("%sfailed to validate server configuration: %s", failed, problem)
	}
	return nil
}

// comeBack resumes the member whose data lies here: with what the server that it once joined says now, or else with what
// its own datastore says, if the token opens that.
func (s *Server) comeBack(ctx context.Context, told string) error {
	if url := s.set.Text("server", ""); url != "" && told != "" {
		data, err := s.askRemote(ctx, url, told)
		if err == nil {
			s.say.Info("Successfully reconciled with remote datastore")
			if err := s.spread(data); err != nil {
				return journal.Fatalf("%s%v", failed, err)
			}
			return s.takePasswords(token.Password(told), s.readPasswd()["node"])
		}
		s.say.Warn("Unable to reconcile with remote datastore: %v", err)
	}
	password := cmp.Or(token.Password(told), s.readPasswd()["server"])
	sealed, err := os.ReadFile(s.sealed())
	if err != nil {
		return journal.Fatalf("%sfailed to reconcile with local datastore: %v", failed, err)
	}
	data, err := unseal(sealed, password)
	if err != nil {
		return journal.Fatalf("%sfailed to reconcile with local datastore: %v", failed, err)
	}
	if err := s.spread(missing(s, data)); err != nil {
		return journal.Fatalf("%s%v", failed, err)
	}
	return s.takePasswords(password, password)
}

// missing reduces data to what does not lie on the disk: files that are there stay as they are.
func missing(s *Server, data bootstrap) bootstrap {
	found := bootstrap{}
	for name, path := range shared() {
		if content, there := data[name]; there && !paths.Exists(s.paths.Server(path)) {
			found[name] = content
		}
	}
	return found
}

func (s *Server) askRemote(ctx context.Context, url, told string) (bootstrap, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	door, err := client.Open(ctx, url, told, "server")
	if err != nil {
		return nil, err
	}
	data := bootstrap{}
	return data, door.JSON(ctx, "/v1-k3s/server-bootstrap", &data)
}
