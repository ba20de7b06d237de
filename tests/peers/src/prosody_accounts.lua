-- A prosodyctl command: creates the accounts u0, u1, ... by the same call as `prosodyctl register`.
local adduser = require "util.prosodyctl".adduser;

function module.command(arg)
	local host, count, password = arg[1], tonumber(arg[2]), arg[3];
	for number = 0, count - 1 do
		assert(adduser({ user = "u" .. number, host = host, password = password }));
	end
	return 0;
end
