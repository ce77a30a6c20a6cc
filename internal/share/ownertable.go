package share

import (
	"container/list"
	"sync"
)

// maxTable bounds the records that are kept in memory: some 20 MB.
const maxTable = 1 << 17

// ownerTable holds the records of what cannot have extended attributes of a user's own
// (xattr(7)): symbolic links, FIFOs, sockets, and everything on a file system without them.
// They are known as long as the server runs, and over a suspension. When there are too
// many, the one that was set first is forgotten: its file has the host's owner again. Its
// methods may be called by several goroutines at once.
type ownerTable struct {
	mu     sync.Mutex
	byKey  map[key]*list.Element // of tableEntry
	oldest *list.List
	max    int
}

type tableEntry struct {
	key    key
	record ownership
}

func newOwnerTable() *ownerTable {
	return &ownerTable{byKey: map[key]*list.Element{}, oldest: list.New(), max: maxTable}
}

func (t *ownerTable) get(k key) *ownership {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byKey[k]
	if e == nil {
		return nil
	}
	v, ok := e.Value.(tableEntry)
	if !ok {
		panic("share: the list holds records")
	}
	return &v.record
}

// set keeps a record, or removes it (nil).
func (t *ownerTable) set(k key, record *ownership) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.byKey[k]; e != nil {
		t.remove(e)
	}
	if record == nil {
		return
	}
	t.byKey[k] = t.oldest.PushBack(tableEntry{k, *record})
	if t.oldest.Len() > t.max {
		t.remove(t.oldest.Front())
	}
}

// remove removes an element. The caller holds the mutex.
func (t *ownerTable) remove(e *list.Element) {
	v, ok := t.oldest.Remove(e).(tableEntry)
	if !ok {
		panic("share: the list holds records")
	}
	delete(t.byKey, v.key)
}
