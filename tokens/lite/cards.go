//go:build cgo

package lite

import (
	"log/slog"

	"p11fs/p11/pkix"
	"p11fs/tokens/lite/libica"
	"p11fs/tokens/swtok"
)

// findCards is p with RSA on cards, by the first libica of these names that can be
// loaded, or nil where that has none.
func findCards(p swtok.Provider, log *slog.Logger, names ...string) swtok.Provider {
	for _, name := range names {
		l, err := libica.Load(name)
		if err != nil {
			log.Debug("no RSA on cards", "err", err)
			continue
		}
		log.Info("RSA on cards", "library", name)
		return withCards{p, l}
	}
	return nil
}

// withCards is a provider whose private RSA keys work on cards.
type withCards struct {
	swtok.Provider
	lib *libica.Library
}

func (p withCards) NewRSAPrivateKey(k *pkix.RSANumbers) (swtok.RSAPrivateKey, error) {
	key, err := p.Provider.NewRSAPrivateKey(k)
	if err != nil || !libica.Fits(k) {
		return key, err
	}
	return swtok.ByRaw(key, k, p.lib.NewRSAKey(k))
}
