package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"funoffshore.bench/k3s/internal/child"
	"funoffshore.bench/k3s/internal/client"
	"funoffshore.bench/k3s/internal/etcd"
	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/kube"
	"funoffshore.bench/k3s/internal/token"
)

// duplicate is why a node whose name is taken ends.
const duplicate = "duplicate node name found, please use a unique name for this node"

// startEtcd runs this node's member until it votes and knows a leader.
func (s *Server) startEtcd(ctx context.Context, founds bool) error {
	resumes := etcd.Exists(s.paths)
	var err error
	if s.local, err = etcd.Open(s.paths, s.node, s.address, s.set.List("etcd-arg")); err != nil {
		return err
	}
	if s.etcd, err = s.etcdClient(s.local.ClientURL()); err != nil {
		return err
	}
	s.stage.Store(pinging)
	cluster := s.local.Cluster()
	if !founds && !resumes {
		if cluster, err = s.announce(ctx); err != nil {
			return journal.Shutdownf("etcd cluster join failed: %v", err)
		}
	}
	config, err := s.local.Write(cluster, founds, false)
	if err != nil {
		return err
	}
	if _, err := s.runEtcd(config); err != nil {
		return err
	}
	return s.awaitVote(ctx, cluster)
}

func (s *Server) runEtcd(config string) (*child.Child, error) {
	started, err := s.kids.Start(child.Spec{
		Name: "etcd", Argv: []string{filepath.Join(s.paths.Bin, "etcd"), "--config-file=" + config},
		Env: []string{"GOMEMLIMIT=600MiB"},
	})
	s.member.Store(started)
	return started, err
}

func (s *Server) etcdClient(endpoints ...string) (*etcd.Client, error) {
	pair, err := tls.LoadX509KeyPair(s.paths.TLS("etcd", "client.crt"), s.paths.TLS("etcd", "client.key"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(s.paths.TLS("etcd", "server-ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return etcd.NewClient(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}, endpoints...), nil
}

// announce makes this node a learner of the cluster that it joins; returns --initial-cluster.
func (s *Server) announce(ctx context.Context) ([]string, error) {
	told, err := Told(s.set, "token")
	if err != nil {
		return nil, err
	}
	door, err := client.Open(ctx, s.set.Text("server", ""), token.Full(s.ca(), "server", token.Password(told)), "server")
	if err != nil {
		return nil, err
	}
	var info struct{ Members []etcd.Member }
	if err := door.JSON(ctx, "/db/info", &info); err != nil {
		return nil, err
	}
	if there, twin := s.look(info.Members); twin {
		s.local.Forget()
		return nil, errors.New(duplicate)
	} else if there {
		return s.peers(info.Members), nil
	}
	others := s.etcd.At(voters(info.Members)...)
	s.say.Info("Adding member %s to etcd cluster %v", s.local.Peer(), s.peers(info.Members))
	members, err := others.AddLearner(ctx, s.local.PeerURL())
	if err != nil {
		return nil, err
	}
	return s.peers(members), nil
}

// look says whether this node is a member already, and whether another one has its name.
func (s *Server) look(members []etcd.Member) (there, twin bool) {
	for _, member := range members {
		own := member.At(s.address)
		if own && (member.Name == "" || member.Name == s.local.Name) {
			there = true
		} else if member.Name != "" && member.Node() == s.node {
			twin = true
		}
	}
	return there, twin
}

// peers are --initial-cluster of members; only this node can be without a name yet.
func (s *Server) peers(members []etcd.Member) []string {
	var found []string
	for _, member := range members {
		name := member.Name
		if name == "" {
			name = s.local.Name
		}
		for _, peer := range member.PeerURLs {
			found = append(found, name+"="+peer)
		}
	}
	return found
}

// voters are where the members that vote can be asked.
func voters(members []etcd.Member) []string {
	var found []string
	for _, member := range members {
		if !member.IsLearner {
			found = append(found, member.ClientURLs...)
		}
	}
	return found
}

// awaitVote waits for a leader, and gets this member promoted as long as it only learns: a learner itself answers
// hardly anything, so those of cluster are asked that vote.
func (s *Server) awaitVote(ctx context.Context, cluster []string) error {
	return s.waitFor(ctx, "etcd", func(ctx context.Context) error {
		_, err := s.etcd.Leader(ctx)
		if err != nil {
			return err
		}
		members, err := s.etcd.Members(ctx)
		if err == nil {
			return nil
		}
		if !strings.Contains(err.Error(), "learner") {
			return err
		}
		others := s.etcd.At(etcd.Clients(cluster, s.local.Name)...)
		if members, err = others.Members(ctx); err != nil {
			return err
		}
		own := s.own(members)
		if own == nil {
			return errors.New("this node is not a member yet")
		}
		if !own.IsLearner {
			return errors.New("it does not know yet that it votes")
		}
		if err := s.etcd.At(voters(members)...).Promote(ctx, own.ID); err != nil {
			return err
		}
		s.say.Info("Promoted learner %s", own.Name)
		return errors.New("promoted just now")
	})
}

func (s *Server) own(members []etcd.Member) *etcd.Member {
	for _, member := range members {
		if member.Name == s.local.Name {
			return &member
		}
	}
	return nil
}

// reportMember keeps the condition EtcdIsVoter of this node's Node true to what etcd says.
func (s *Server) reportMember(ctx context.Context) {
	if s.set.Bool("disable-agent") {
		return
	}
	for {
		s.reportOnce(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Second):
		}
	}
}

func (s *Server) reportOnce(ctx context.Context) {
	node, err := s.kube.Get(ctx, "/api/v1/nodes/"+s.node)
	if err != nil {
		return
	}
	status, reason, message := "False", "NotAMember", "Node is not a member of the etcd cluster"
	members, err := s.etcd.Members(ctx)
	if own := s.own(members); err != nil {
		reason, message = "Unhealthy", err.Error()
	} else if own != nil && own.IsLearner {
		reason, message = "MemberIsLearner", "Node has not been promoted to voting member of the etcd cluster"
	} else if own != nil {
		status, reason, message = "True", "MemberNotLearner", "Node is a voting member of the etcd cluster"
	}
	now := s.now().UTC().Format(time.RFC3339)
	condition := kube.Object{
		"type": "EtcdIsVoter", "status": status, "reason": reason, "message": message,
		"lastHeartbeatTime": now, "lastTransitionTime": now,
	}
	for _, there := range kube.Objects(node, "status", "conditions") {
		if kube.Text(there, "type") != "EtcdIsVoter" || kube.Text(there, "status") != status {
			continue
		}
		if beat, err := time.Parse(time.RFC3339, kube.Text(there, "lastHeartbeatTime")); err == nil &&
			s.now().Sub(beat) < 5*time.Minute && kube.Text(there, "reason") == reason {
			return
		}
		condition["lastTransitionTime"] = kube.Text(there, "lastTransitionTime")
	}
	patch := kube.Object{"status": kube.Object{"conditions": []any{condition}}}
	if err := s.kube.Patch(ctx, "/api/v1/nodes/"+s.node+"/status", kube.Strategic, patch); err != nil {
		s.say.Error("Failed to report the state of the etcd member: %v", err)
	}
}

// expel removes the member of a deleted Node: the one that the Node named, and no later one of the same name that has come
// meanwhile. A Node that has named none yet loses what bears its name or, nameless still, its address. Its own node leaves
// that to the others.
func (s *Server) expel(ctx context.Context, node, named, address string) error {
	members, err := s.etcd.Members(ctx)
	if err != nil {
		return err
	}
	for _, member := range members {
		own := member.Name == named
		if named == "" {
			own = member.Node() == node || member.Name == "" && address != "" && member.At(address)
		}
		if !own {
			continue
		}
		if len(members) == 1 {
			return nil
		}
		s.say.Info("Removing name=%s id=%s address=%s from etcd", node, member.ID, address)
		if err := s.etcd.Remove(ctx, member.ID); err != nil && !strings.Contains(err.Error(), "member not found") {
			return err
		}
	}
	return nil
}

// dbInfo answers /db/info: whom a joiner can ask.
func (s *Server) dbInfo(response http.ResponseWriter, request *http.Request) {
	members, err := s.etcd.Members(request.Context())
	if err != nil {
		refuse(response, http.StatusInternalServerError, "InternalError", fmt.Sprint(err))
		return
	}
	answerJSON(response, map[string]any{"members": members})
}

func (s *Server) ca() []byte {
	content, _ := os.ReadFile(s.paths.TLS("server-ca.crt"))
	return content
}
