package supervisor

import (
	"os"
	"sync"
)

// logFile is a log of bounded size: when it is full it becomes FILE.1, in
// place of the FILE.1 before it. The guest can fill it but not the disk.
type logFile struct {
	path string
	max  int64 // bytes of one file; two may exist

	mu   sync.Mutex
	f    *os.File
	size int64
}

func openLog(path string, max int64) (*logFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &logFile{path: path, max: max, f: f, size: fi.Size()}, nil
}

// Write never fails: a log that cannot be written (a full disk) must not stop
// what is being logged.
func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > 0 && l.size+int64(len(b)) > l.max {
		l.rotate()
	}
	n, _ := l.f.Write(b)
	l.size += int64(n)
	return len(b), nil
}

func (l *logFile) rotate() {
	if err := os.Rename(l.path, l.path+".1"); err != nil {
		return
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	l.f.Close()
	l.f, l.size = f, 0
}

// move gives the log another place on the same file system.
func (l *logFile) move(path string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := os.Rename(l.path, path); err != nil {
		return err
	}
	l.path = path
	return nil
}

func (l *logFile) Close() error { return l.f.Close() }
