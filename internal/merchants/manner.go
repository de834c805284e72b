package merchants

// PolicyOfKey is the name of the idempotency policy of a public key's merchant, whoever
// sends it: nobody is authenticated by that. Of a key that is not taken, it is the
// default. It is for telling a client in words that it can read why it is refused.
func (s *Service) PolicyOfKey(publicKey string) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e, known := s.dir.keys[publicKey]; known {
		return e.caller.Policy
	}
	return s.policies[0]
}
