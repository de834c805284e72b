package providers

// Registry is the providers of one installation: which one serves a mode, and
// which one an unresolved transaction has to go back to.
type Registry struct {
	byMode map[string]Provider
	byName map[string]Provider
}

// NewRegistry makes a registry from the provider of each mode. A mode without one
// cannot be charged in.
func NewRegistry(byMode map[string]Provider) Registry {
	r := Registry{byMode: map[string]Provider{}, byName: map[string]Provider{}}
	for mode, p := range byMode {
		r.byMode[mode] = p
		r.byName[p.Name()] = p
	}
	return r
}

// For is the provider that new charges of a mode go to.
func (r Registry) For(mode string) (Provider, bool) {
	p, ok := r.byMode[mode]
	return p, ok
}

// Named is the provider of that name.
func (r Registry) Named(name string) (Provider, bool) {
	p, ok := r.byName[name]
	return p, ok
}

// All are the providers, each once, in no particular order.
func (r Registry) All() []Provider {
	all := make([]Provider, 0, len(r.byName))
	for _, p := range r.byName {
		all = append(all, p)
	}
	return all
}
