package mountpoint

import "testing"

func TestOnTop(t *testing.T) {
	ours := Mount{Path: "/p11", Device: "0:40", Type: Type}
	for _, c := range []struct {
		name   string
		mounts []Mount
		want   bool
	}{
		{"alone", []Mount{ours}, true},
		{"another elsewhere", []Mount{ours, {Path: "/p11/x", Device: "0:41"}}, true},
		{"over another", []Mount{{Path: "/p11", Device: "0:39"}, ours}, true},
		{"under another", []Mount{ours, {Path: "/p11", Device: "0:41", Type: "tmpfs"}}, false},
		{"under another daemon's", []Mount{ours, {Path: "/p11", Device: "0:41", Type: Type}}, false},
		{"moved", []Mount{{Path: "/old", Device: "0:40", Type: Type}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := topOn(c.mounts, "/p11").Device == "0:40"; got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}
