package checkout

import (
	"testing"

	"github.com/oncepay/oncepay/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }
