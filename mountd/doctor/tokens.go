package doctor

import (
	"fmt"
	"os"
	"path/filepath"

	"p11fs/shm"
)

// icsfDataSize is the length in bytes of an icsf token's NVTOK.DAT, which has a
// record behind what the others have.
const icsfDataSize = shm.TokenDataSize + 20752

// tokens looks for token data that no daemon will open.
func (p Patient) tokens() Finding {
	f := Finding{Check: "tokens"}
	files, err := filepath.Glob(filepath.Join(p.Paths.Data, "*", "NVTOK.DAT"))
	if err != nil {
		f.Wrong, f.Mend = err.Error(), "p11fs mount with another directory of tokens"
		return f
	}
	for _, file := range files {
		st, err := os.Stat(file)
		if err != nil || st.Size() == shm.TokenDataSize || st.Size() == icsfDataSize {
			continue // who may not look is told so by other checks
		}
		dir := filepath.Dir(file)
		f.Wrong = fmt.Sprintf("%s has %d bytes where format 3.8 has %d: it is damaged or of another format, and the token stays closed",
			file, st.Size(), shm.TokenDataSize)
		f.Mend = fmt.Sprintf("put it back from a backup, or, for an empty token in its place: mv %s %s.damaged", dir, dir)
		return f
	}
	f.Detail = fmt.Sprintf("%d found", len(files))
	return f
}
