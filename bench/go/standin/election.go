package main

import (
	"context"
	"time"
)

const microTime = "2006-01-02T15:04:05.000000Z07:00"

// election decides by a Lease which of several processes leads.
type election struct {
	c         *client
	namespace string
	name      string
	identity  string
	duration  time.Duration
	seen      string    // holder and time of renewal, as last seen
	since     time.Time // when that was first seen, by our own clock
}

func (e *election) path() string {
	return "/apis/coordination.k8s.io/v1/namespaces/" + e.namespace + "/leases"
}

// try takes or renews the lease and says whether this process holds it now.
func (e *election) try(ctx context.Context) (bool, error) {
	lease, err := e.c.get(ctx, e.path()+"/"+e.name)
	if hasCode(err, 404) {
		err = e.c.create(ctx, e.path(), object{
			"apiVersion": "coordination.k8s.io/v1",
			"kind":       "Lease",
			"metadata":   object{"name": e.name, "namespace": e.namespace},
			"spec":       e.spec(object{}),
		})
		return settled(err)
	}
	if err != nil {
		return false, err
	}
	holder := str(lease, "spec", "holderIdentity")
	if now := holder + " " + str(lease, "spec", "renewTime"); now != e.seen {
		e.seen, e.since = now, time.Now()
	}
	if holder != e.identity && holder != "" && time.Since(e.since) < e.duration {
		return false, nil
	}
	before, _ := lease["spec"].(object)
	lease["spec"] = e.spec(before)
	return settled(e.c.update(ctx, e.path()+"/"+e.name, lease))
}

// settled takes it for lost, not for an error, when somebody else was faster.
func settled(err error) (bool, error) {
	if hasCode(err, 409) {
		return false, nil
	}
	return err == nil, err
}

func (e *election) spec(before object) object {
	now := time.Now().UTC().Format(microTime)
	acquired, turns := now, number(before, "leaseTransitions")
	if str(before, "holderIdentity") == e.identity {
		acquired = str(before, "acquireTime")
	} else if len(before) > 0 {
		turns++
	}
	return object{
		"holderIdentity":       e.identity,
		"leaseDurationSeconds": max(1, int(e.duration.Seconds())),
		"acquireTime":          acquired,
		"renewTime":            now,
		"leaseTransitions":     turns,
	}
}

// release gives the lease to whoever asks first.
func (e *election) release(ctx context.Context) error {
	lease, err := e.c.get(ctx, e.path()+"/"+e.name)
	if err != nil || str(lease, "spec", "holderIdentity") != e.identity {
		return err
	}
	spec := lease["spec"].(object)
	spec["holderIdentity"] = ""
	spec["leaseDurationSeconds"] = 1
	_, err = settled(e.c.update(ctx, e.path()+"/"+e.name, lease))
	return err
}
