package integration

import (
	"os"
	"path/filepath"
	"testing"

	"p11fs/tokens/store/storetest"
)

// TestStockNewerNames works on a token of stock 3.27 in the format of 3.8, whose
// objects have names that 3.8.1 would not make: stock 3.8.1 and p11fs list all of
// them before and after p11fs has written ten times.
func TestStockNewerNames(t *testing.T) {
	t.Parallel()
	needStock(t)
	d, term := ready(t, daemonConfig{system: true})
	d.stop()
	token := filepath.Join(d.tokenRoot(), "swtok")
	if err := os.RemoveAll(token); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(token, os.DirFS(storetest.Untar(t, "swold"))); err != nil {
		t.Fatal(err)
	}
	// Where 3.27 leaves NUL bytes, 3.8.1 wants the name of the next object.
	data, err := os.OpenFile(filepath.Join(token, "NVTOK.DAT"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	if _, err := data.WriteAt([]byte("00000000"), 208); err != nil {
		t.Fatal(err)
	}
	stock := func(want int) {
		t.Helper()
		host := startStock(t, d.tokenRoot())
		if got := host.objects(storetest.UserPIN); len(got) != want {
			t.Errorf("stock lists %d objects, want %d", len(got), want)
		}
		host.stop()
	}
	stock(14)
	d.start()
	term.ok("echo " + storetest.UserPIN + " > $T/login")
	if n := len(viewObjects(t, term)); n != 14 {
		t.Errorf("p11fs lists %d objects", n)
	}
	term.ok("for i in 1 2 3; do echo a > $T/data/n$i && echo b > $T/data/n$i && rm $T/data/n$i || exit; done; echo kept > $T/data/kept")
	if n := len(viewObjects(t, term)); n != 15 {
		t.Errorf("p11fs lists %d objects after ten writes, want one more", n)
	}
	d.stop()
	stock(15)
}
