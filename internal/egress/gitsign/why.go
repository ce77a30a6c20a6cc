package gitsign

import (
	"slices"
	"strconv"
	"strings"
)

// What went wrong, in words that name nothing of the host: they go to the guest, whose git prints them. A
// program of which nothing is known here has its own words in the supervisor's log.

// Codes of libgpg-error (err-codes.h.in). A code in a status line has its source in the higher bits.
const (
	gpgBadPassphrase = 11
	gpgNoSecretKey   = 17
	gpgTimeout       = 62
	gpgNoAgent       = 77
	gpgNoPinentry    = 85
	gpgPinentry      = 86
	gpgBadPIN        = 87
	gpgCancelled     = 99
	gpgCardRemoved   = 110
	gpgNoCard        = 112
	gpgAllCancelled  = 198
	gpgCode          = 1<<16 - 1
)

// The reasons that are told apart.
const (
	whyCancelled = "the user did not let the key be used on the host: it was asked for and cancelled"
	whyWrong     = "the passphrase or PIN of the signing key, asked for on the host, was wrong"
	whyLocked    = "the signing key is locked on the host, and nothing there can ask for its passphrase: the user unlocks it by one signature of a shell there, or by ssh-add"
	whyNoKey     = "the host does not have the secret part of the signing key"
	whyNoAgent   = "the agent that has the signing key does not answer on the host"
	whyTimeout   = "the user was asked on the host, and did not answer in time"
	whyNoCard    = "the card or token with the signing key is not in the host"
)

// why returns the reason for a failure, or "" if it is not known.
func (r *result) why() string {
	for _, code := range r.codes() {
		switch code {
		case gpgCancelled, gpgAllCancelled:
			return whyCancelled
		case gpgBadPassphrase, gpgBadPIN:
			return whyWrong
		case gpgNoPinentry, gpgPinentry:
			return whyLocked
		case gpgNoSecretKey:
			return whyNoKey
		case gpgNoAgent:
			return whyNoAgent
		case gpgTimeout:
			return whyTimeout
		case gpgNoCard, gpgCardRemoved:
			return whyNoCard
		}
	}
	if slices.ContainsFunc(r.status("INV_SGNR"), func(w []string) bool { return len(w) > 1 }) {
		return whyNoKey
	}
	for _, s := range sshWords {
		if strings.Contains(string(r.said), s.said) {
			return s.why
		}
	}
	return ""
}

// codes returns the codes of errors that GnuPG reports.
func (r *result) codes() (list []uint64) {
	for _, words := range append(r.status("FAILURE"), r.status("ERROR")...) {
		if len(words) < 3 {
			continue
		}
		if n, err := strconv.ParseUint(words[2], 10, 32); err == nil {
			list = append(list, n&gpgCode)
		}
	}
	return list
}

// sshWords are what ssh-keygen says (ssherr.c, sshsig.c and ssh-keygen.c of OpenSSH).
var sshWords = []struct{ said, why string }{
	{"incorrect passphrase supplied", whyLocked},
	{"agent refused operation", whyCancelled},
	{"Couldn't get agent socket", whyNoAgent},
	{"communication with agent failed", whyNoAgent},
	{"No private key found for", whyNoKey},
	{"device not found", whyNoCard},
	{"Couldn't load public key", whyNoKey},
}
