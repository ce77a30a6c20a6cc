package image

import (
	"cmp"
	"slices"
)

// List returns the images in the cache: for each reference its present image, then those
// that no reference stands for any more. Damaged ones are left out.
func (s *Store) List() ([]Image, error) {
	refs, err := s.references()
	if err != nil {
		return nil, err
	}
	keys, err := s.cache.Keys(kind)
	if err != nil {
		return nil, err
	}
	var list []Image
	for _, k := range keys {
		e, err := s.cache.Peek(kind, k)
		if err != nil {
			continue
		}
		i, err := fromEntry(e)
		if err != nil {
			continue
		}
		if len(refs[k]) == 0 {
			i.Superseded = true
			list = append(list, *i)
		}
		for _, r := range refs[k] {
			named := *i
			named.Ref = r
			list = append(list, named)
		}
	}
	slices.SortFunc(list, func(a, b Image) int {
		return cmp.Or(compareBool(a.Superseded, b.Superseded), cmp.Compare(a.Ref, b.Ref), cmp.Compare(a.Digest, b.Digest))
	})
	return list, nil
}

// references returns the references that stand for each key.
func (s *Store) references() (map[string][]string, error) {
	names, err := s.cache.Pointers(kind)
	if err != nil {
		return nil, err
	}
	refs := map[string][]string{}
	for _, n := range names {
		var p pointer
		if s.cache.Pointer(kind, n, &p) == nil {
			refs[p.Key] = append(refs[p.Key], p.Ref)
		}
	}
	return refs, nil
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
