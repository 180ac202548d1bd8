package token

import (
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	hash := strings.Repeat("a", 64)
	for text, wanted := range map[string]Token{
		"K10" + hash + "::server:se:same":          {hash, "server", "se:same"},
		"K10" + hash + "::abc123.0123456789abcdef": {hash, "abc123", "0123456789abcdef"},
		"abc123.0123456789abcdef":                  {"", "abc123", "0123456789abcdef"},
		"bare\n":                                   {"", "", "bare"},
	} {
		if found, err := Parse(text); err != nil || found != wanted {
			t.Errorf("%q is %v, %v", text, found, err)
		}
	}
	if _, err := Parse("K10abc::server:x"); !errors.Is(err, ErrHashLength) {
		t.Errorf("a short hash says %v", err)
	}
}

func TestFullTokensComeBack(t *testing.T) {
	full := Full([]byte("ca"), "node", "pw")
	found, err := Parse(full)
	if err != nil || found != (Token{HashOf([]byte("ca")), "node", "pw"}) || Password(full) != "pw" || Password("x") != "x" {
		t.Fatalf("%q is %v, %v", full, found, err)
	}
	id, secret := Generate()
	found, err = Parse(FullBootstrap([]byte("ca"), id, secret))
	if err != nil || !found.IsBootstrap() || found.User != id || found.Password != secret {
		t.Fatalf("%v, %v", found, err)
	}
}
