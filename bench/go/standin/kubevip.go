package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

const arpEvery = 3 * time.Second

// vip is an address that the leader of the control plane carries.
type vip struct {
	address  netip.Addr
	device   *net.Interface
	election *election
	retry    time.Duration
	deadline time.Duration
	carried  bool
	renewed  time.Time
	told     time.Time // when the neighbours were told last
}

// kubeVip is kube-vip in ARP mode for the control plane, set by the same environment.
func kubeVip(ctx context.Context, c *client) error {
	v, err := newVip(c)
	if err != nil {
		return err
	}
	// left over from a predecessor that was killed
	if err := changeAddress(v.device.Index, v.address, false); err == nil {
		log.Printf("removed %s, which was still on %s", v.address, v.device.Name)
	}
	repeat(ctx, v.retry, func() error { return v.once(ctx) })
	v.drop("asked to stop")
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	return v.election.release(last)
}

func newVip(c *client) (*vip, error) {
	address, err := netip.ParseAddr(os.Getenv("address"))
	if err != nil || !address.Is4() {
		return nil, fmt.Errorf("address: %q is no IPv4 address", os.Getenv("address"))
	}
	name := os.Getenv("vip_interface")
	if name == "" {
		if name, err = defaultInterface("/proc/net/route"); err != nil {
			return nil, err
		}
	}
	device, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	identity := os.Getenv("vip_nodename")
	if identity == "" {
		if identity, err = os.Hostname(); err != nil {
			return nil, err
		}
	}
	log.Printf("%s, kube-vip: %s on %s for %s", says, address, name, identity)
	return &vip{
		address:  address,
		device:   device,
		retry:    seconds("vip_retryperiod", 1),
		deadline: seconds("vip_renewdeadline", 3),
		election: &election{
			c:         c,
			namespace: either(os.Getenv("cp_namespace"), "kube-system"),
			name:      either(os.Getenv("vip_leasename"), "plndr-cp-lock"),
			identity:  identity,
			duration:  seconds("vip_leaseduration", 5),
		},
	}, nil
}

// once renews or tries to win, and moves the address accordingly.
func (v *vip) once(ctx context.Context) error {
	asked, cancel := context.WithTimeout(ctx, v.deadline)
	defer cancel()
	leads, err := v.election.try(asked)
	switch {
	case err == nil && leads:
		v.renewed = time.Now()
		return v.carry()
	case err == nil:
		v.drop("another one leads")
	case time.Since(v.renewed) > v.deadline:
		v.drop(err.Error())
	}
	return err
}

// carry puts the address on, or keeps it there, and tells the neighbours now and then.
func (v *vip) carry() error {
	if err := changeAddress(v.device.Index, v.address, true); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("adding %s: %w", v.address, err)
	} else if err == nil {
		log.Printf("leading: %s is on %s", v.address, v.device.Name)
		v.told = time.Time{}
	}
	v.carried = true
	if time.Since(v.told) < arpEvery {
		return nil
	}
	v.told = time.Now()
	return announce(v.device, v.address)
}

func (v *vip) drop(why string) {
	if !v.carried {
		return
	}
	if err := changeAddress(v.device.Index, v.address, false); err != nil {
		log.Printf("removing %s: %v", v.address, err)
		return
	}
	v.carried = false
	log.Printf("%s is gone from %s: %s", v.address, v.device.Name, why)
}

// defaultInterface reads which interface the default route uses.
func defaultInterface(table string) (string, error) {
	file, err := os.Open(table)
	if err != nil {
		return "", err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 7 && fields[1] == "00000000" && fields[7] == "00000000" {
			return fields[0], nil
		}
	}
	return "", errors.New("there is no default route, so vip_interface must be set")
}

func seconds(key string, otherwise int) time.Duration {
	if value, err := strconv.Atoi(os.Getenv(key)); err == nil && value > 0 {
		otherwise = value
	}
	return time.Duration(otherwise) * time.Second
}

func either(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
