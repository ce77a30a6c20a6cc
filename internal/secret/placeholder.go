package secret

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// keyFile holds the key from which placeholders are derived, in the state folder.
const keyFile = "placeholder.key"

// keyLength is the length of that key in bytes.
const keyLength = 32

// alphabet are the characters of a placeholder after its prefix. No encoding of a URL, of
// JSON or of a header changes them.
const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// Placeholder returns what the guest of the sandbox with that ID has in place of the secret.
func (s *Store) Placeholder(sec *Secret, sandboxID string) (string, error) {
	key, err := s.key()
	if err != nil {
		return "", err
	}
	return derive(key, sec, sandboxID)
}

// derive makes the placeholder from the key by HKDF (RFC 5869): whoever knows the placeholder
// of one sandbox learns nothing about another's.
func derive(key []byte, sec *Secret, sandboxID string) (string, error) {
	return deriveText(key, sec, sandboxID, sec.Shape.Bounded(), alphabet)
}

// deriveText derives a text of that shape, from that alphabet. of tells it from others of the secret.
func deriveText(key []byte, sec *Secret, of string, shape Shape, alphabet string) (string, error) {
	n := shape.Length - len(shape.Prefix)
	// With 62 characters a byte of 248 and above is skipped, since 248 is the last multiple of 62: the
	// bytes that are left over suffice but for a chance below 2^-100.
	stream, err := hkdf.Key(sha256.New, key, nil, fmt.Sprintf("bawn placeholder %q %q", of, sec.ID), 2*n+64)
	if err != nil {
		return "", err
	}
	out := []byte(shape.Prefix)
	for _, b := range stream {
		if int(b) < 256/len(alphabet)*len(alphabet) && len(out) < shape.Length {
			out = append(out, alphabet[int(b)%len(alphabet)])
		}
	}
	if len(out) != shape.Length {
		return "", errors.New("a placeholder could not be derived")
	}
	return string(out), nil
}

// key returns the key of placeholders, and makes it at the first use.
func (s *Store) key() ([]byte, error) {
	path := filepath.Join(s.state, keyFile)
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = s.makeKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("key of placeholders: %w", err)
	}
	if len(key) != keyLength {
		return nil, fmt.Errorf("key of placeholders: %s has %d bytes instead of %d: remove it, and start the sandboxes again", path, len(key), keyLength)
	}
	return key, nil
}

// makeKey writes a new key, unless another process was quicker.
func (s *Store) makeKey(path string) ([]byte, error) {
	if err := os.MkdirAll(s.state, 0o700); err != nil {
		return nil, err
	}
	l, err := lockfile.Acquire(background, path+".lock")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	if key, err := os.ReadFile(path); err == nil {
		return key, nil
	}
	key := make([]byte, keyLength)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	return key, atomicfile.Write(path, key)
}
