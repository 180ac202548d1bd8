// Package token takes join tokens apart. Formats: K3s documentation, "k3s token".
package token

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"regexp"
	"strings"
)

// ErrHashLength is a K10 that is not followed by 64 hex digits.
var ErrHashLength = errors.New("invalid token CA hash length")

const prefix = "K10"

// Token is a join token, taken apart.
type Token struct {
	// Hash is the CA's, 64 hex digits; empty for a bare secret.
	Hash string
	// User is server, node, or the ID of a bootstrap token; empty for a bare secret.
	User     string
	Password string
}

var bootstrap = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)

// Parse takes any of K10<hash>::<user>:<password>, K10<hash>::<id>.<secret>, <id>.<secret> and a bare secret.
func Parse(text string) (Token, error) {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, prefix) {
		if found := bootstrap.FindStringSubmatch(text); found != nil {
			return Token{User: found[1], Password: found[2]}, nil
		}
		return Token{Password: text}, nil
	}
	hash, credentials, _ := strings.Cut(text[len(prefix):], "::")
	if len(hash) != 64 {
		return Token{}, ErrHashLength
	}
	if found := bootstrap.FindStringSubmatch(credentials); found != nil {
		return Token{Hash: hash, User: found[1], Password: found[2]}, nil
	}
	user, password, _ := strings.Cut(credentials, ":")
	return Token{Hash: hash, User: user, Password: password}, nil
}

// IsBootstrap is whether it is one of "k3s token create", good for agents only.
func (t Token) IsBootstrap() bool { return bootstrap.MatchString(t.User + "." + t.Password) }

// Password is the part after the last colon of a full token, or the whole bare secret.
func Password(text string) string {
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, prefix) {
		return text[strings.LastIndex(text, ":")+1:]
	}
	return text
}

// HashOf is the plain SHA-256 of the CA's file, as long as that holds one certificate.
func HashOf(ca []byte) string {
	sum := sha256.Sum256(ca)
	return hex.EncodeToString(sum[:])
}

// Full is K10<hash>::<user>:<password>.
func Full(ca []byte, user, password string) string {
	return prefix + HashOf(ca) + "::" + user + ":" + password
}

// FullBootstrap is K10<hash>::<id>.<secret>.
func FullBootstrap(ca []byte, id, secret string) string {
	return prefix + HashOf(ca) + "::" + id + "." + secret
}

// Hex is n random bytes in hex.
func Hex(n int) string {
	data := make([]byte, n)
	_, _ = rand.Read(data)
	return hex.EncodeToString(data)
}

// Generate is the ID and the secret of a new bootstrap token.
func Generate() (string, string) { return letters(6), letters(16) }

func letters(n int) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
	data := make([]byte, n)
	_, _ = rand.Read(data)
	for i, value := range data {
		data[i] = alphabet[int(value)%len(alphabet)]
	}
	return string(data)
}
