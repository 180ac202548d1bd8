package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

const (
	grpcInvalid       = 3
	grpcUnimplemented = 12
	grpcInternal      = 13
	grpcLimit         = 4 << 20
)

// call answers one method: request in, response out, both protobuf.
type call func(request []byte) ([]byte, error)

// failure is an error with a status of gRPC.
type failure struct {
	code int
	text string
}

func (f *failure) Error() string { return f.text }

// serveGrpc serves unary methods by their full names on a unix socket until ctx ends.
func serveGrpc(ctx context.Context, socket string, calls map[string]call) error {
	if err := os.MkdirAll(filepath.Dir(socket), 0o750); err != nil {
		return err
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: grpcHandler(calls), Protocols: protocols, ReadHeaderTimeout: 30 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func grpcHandler(calls map[string]call) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
		answer, err := grpcAnswer(calls, r)
		code, text := 0, ""
		if err != nil {
			log.Printf("%s: %v", r.URL.Path, err)
			code, text = grpcInternal, err.Error()
			var f *failure
			if errors.As(err, &f) {
				code = f.code
			}
		} else {
			head := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(answer)))
			_, _ = w.Write(append(head, answer...))
		}
		w.WriteHeader(http.StatusOK)
		w.Header().Set("Grpc-Status", strconv.Itoa(code))
		w.Header().Set("Grpc-Message", text)
	})
}

func grpcAnswer(calls map[string]call, r *http.Request) ([]byte, error) {
	method := calls[r.URL.Path]
	if method == nil {
		return nil, &failure{grpcUnimplemented, fmt.Sprintf("unknown method %s", r.URL.Path)}
	}
	content, err := io.ReadAll(io.LimitReader(r.Body, grpcLimit))
	if err != nil {
		return nil, err
	}
	if len(content) < 5 || content[0] != 0 || int(binary.BigEndian.Uint32(content[1:5])) != len(content)-5 {
		return nil, &failure{grpcInvalid, "not one uncompressed message"}
	}
	return method(content[5:])
}
