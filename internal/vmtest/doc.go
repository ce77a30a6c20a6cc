// Package vmtest runs bawn as a person does, in real machines: what it promises,
// and the attacks that must fail. `make test` builds it with the tag vm and runs
// it once as root and once as an ordinary user.
//
// BAWN names the program under test, BAWN_TEST_CACHE the folder of images that
// runs share (as XDG_CACHE_HOME). Most tests share one sandbox; those that break
// it make their own.
package vmtest
