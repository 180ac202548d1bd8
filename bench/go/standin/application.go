package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// application serves 200 on every path of the ports in STANDIN_PORTS and PORT, with and without TLS on each.
func application(ctx context.Context, role string) error {
	ports, err := portsOf(os.Getenv("STANDIN_PORTS"), os.Getenv("PORT"))
	if err != nil {
		return err
	}
	settings, err := selfSigned(role)
	if err != nil {
		return err
	}
	log.Printf("%s, %s: ports %v", says, role, ports)
	for _, port := range ports {
		go servePort(ctx, role, port, settings)
	}
	<-ctx.Done()
	return nil
}

// portsOf reads lists of ports separated by commas; each port once.
func portsOf(lists ...string) ([]int, error) {
	var ports []int
	seen := map[int]bool{}
	for _, text := range strings.Split(strings.Join(lists, ","), ",") {
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		port, err := strconv.Atoi(text)
		if err != nil || port < 1 || port > 65535 {
			return nil, fmt.Errorf("%q is no port", text)
		}
		if !seen[port] {
			seen[port] = true
			ports = append(ports, port)
		}
	}
	return ports, nil
}

// servePort listens until ctx ends, and tries again while another program has the port.
func servePort(ctx context.Context, role string, port int, settings *tls.Config) {
	for ctx.Err() == nil {
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			log.Printf("port %d: %v", port, err)
			wait(ctx, 2*time.Second)
			continue
		}
		server := &http.Server{
			ReadHeaderTimeout: 30 * time.Second,
			ErrorLog:          log.New(nowhere{}, "", 0),
			Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/plain; charset=utf-8")
				fmt.Fprintf(w, "# %s, playing %s\n", says, role)
			}),
		}
		if err := server.Serve(&eitherListener{listener, settings}); err != nil && !errors.Is(err, http.ErrServerClosed) {
			log.Printf("port %d: %v", port, err)
		}
		wait(ctx, time.Second)
	}
}

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

// eitherListener gives connections that may begin with TLS or not.
type eitherListener struct {
	net.Listener
	settings *tls.Config
}

func (l *eitherListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &eitherConn{Conn: conn, settings: l.settings}, nil
}

// eitherConn looks at the first byte that comes and only then knows what it is.
type eitherConn struct {
	net.Conn
	settings *tls.Config
	inner    net.Conn
}

func (c *eitherConn) Read(p []byte) (int, error) {
	if c.inner == nil {
		reader := bufio.NewReader(c.Conn)
		first, err := reader.Peek(1)
		if err != nil {
			return 0, err
		}
		c.inner = &peekedConn{c.Conn, reader}
		if first[0] == 0x16 { // a TLS handshake
			c.inner = tls.Server(c.inner, c.settings)
		}
	}
	return c.inner.Read(p)
}

func (c *eitherConn) Write(p []byte) (int, error) {
	if c.inner == nil {
		return c.Conn.Write(p)
	}
	return c.inner.Write(p)
}

type peekedConn struct {
	net.Conn
	reader *bufio.Reader
}

func (c *peekedConn) Read(p []byte) (int, error) { return c.reader.Read(p) }

// selfSigned makes a certificate for this process alone.
func selfSigned(name string) (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name, Organization: []string{says}},
		DNSNames:     []string{name, "localhost"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(10, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		MinVersion:   tls.VersionTLS12,
	}, nil
}

// connects says whether something listens at address.
func connects(address string) error {
	conn, err := net.DialTimeout("tcp", address, 3*time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}

// wait sleeps, but not longer than ctx.
func wait(ctx context.Context, how time.Duration) {
	timer := time.NewTimer(how)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
