package stocktpm

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tpm/tpm12"
)

// neighbour is another program that has the TPM at the same time.
type neighbour struct{ net.Conn }

// Send is tpm12.Device.
func (n neighbour) Send(_ context.Context, command []byte) ([]byte, error) {
	if _, err := n.Write(command); err != nil {
		return nil, err
	}
	head := make([]byte, 10)
	if _, err := io.ReadFull(n, head); err != nil {
		return nil, err
	}
	rest := make([]byte, binary.BigEndian.Uint32(head[2:])-10)
	_, err := io.ReadFull(n, rest)
	return append(head, rest...), err
}

// TestFullTPM has another program fill the TPM with keys: where some are ours these make
// room, and else it is said what is wrong.
func TestFullTPM(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	conn, err := net.Dial("unix", strings.TrimPrefix(string(g.device), "unix:"))
	noError(t, err)
	defer conn.Close()
	other := tpm12.Chip{Device: neighbour{conn}}
	ctx := t.Context()
	before := g.open(t)
	tree, err := before.tree(ctx, p11.CKU_SO)
	noError(t, err)
	fill := func() (keys []tpm12.Handle) {
		for {
			h, err := other.Load(ctx, tpm12.SRK, &tpm12.Auth{}, tree.root.key)
			if err != nil {
				if !errors.Is(err, tpm12.CodeNoSpace) {
					t.Fatal(err)
				}
				return keys
			}
			keys = append(keys, h)
		}
	}
	all := fill()
	_, err = before.Login(ctx, p11.CKU_USER, pin(t, g.UserPIN))
	wantRV(t, "a login while all keys in the TPM are others'", err, p11.CKR_DEVICE_MEMORY)
	info, err := before.Info(ctx)
	if noError(t, err); info.Flags&p11.CKF_USER_PIN_COUNT_LOW != 0 {
		t.Error("it is counted")
	}
	for _, h := range all {
		noError(t, other.Flush(ctx, h))
	}

	tok := g.open(t)
	login(t, tok, p11.CKU_USER, g.UserPIN)
	g.signs(t, tok, "gen-priv")
	fill()
	g.signs(t, tok, "gen-pub", "ext-priv", "gen-priv")
}
