package shm

// A token's segment of openCryptoki 3.12 and later: what is looked at of it. From 3.27 on
// entries are shorter, and a build may have another number of them.
const (
	offPrivateCount312  = tokenHeader + 592
	offPublicCount312   = tokenHeader + 596
	offPrivateLoaded312 = tokenHeader + 600
	offPublicLoaded312  = tokenHeader + 601
	offPublic312        = tokenHeader + 604
	entrySize327        = 16
	tokenSize312        = offPublic312 + 2*MaxObjects*entrySize + 4 // rounded up to 8
)

// Lists312 reads a copy of a token's segment that openCryptoki of 3.12 or later has made: the
// names of the objects that its programs take for all there are, of each kind if they have
// listed it yet. ok is false for anything else.
func Lists312(b []byte) (names [2][]string, loaded [2]bool, ok bool) {
	if len(b) < offPublic312 || int64(u32(b, offLength)) != int64(len(b)-tokenHeader) {
		return names, loaded, false
	}
	size, nameAt, most := entrySize327, 0, (len(b)-offPublic312)/(2*entrySize327)
	switch {
	case len(b) == tokenSize312:
		size, nameAt, most = entrySize, entryName, MaxObjects
	case len(b) != (offPublic312+2*most*entrySize327+7)&^7:
		return names, loaded, false
	}
	for _, l := range []struct {
		list                List
		count, loaded, from int
	}{
		{Public, offPublicCount312, offPublicLoaded312, offPublic312},
		{Private, offPrivateCount312, offPrivateLoaded312, offPublic312 + most*size},
	} {
		n := int(u32(b, l.count))
		if n > most {
			return names, loaded, false
		}
		loaded[l.list] = b[l.loaded] != 0
		for i := range n {
			at := l.from + i*size + nameAt
			names[l.list] = append(names[l.list], string(b[at:at+NameSize]))
		}
	}
	return names, loaded, true
}
