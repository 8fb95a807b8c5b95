-- What a node has counted in one turn, at most 512 sessions.
--
-- KEYS     the sessions' records
-- ARGV     node, attempt (the number of the node's connection to this server), time to live in ms, prefix of the nodes'
--          channels; then for each session: id, token of the claim, generation that the owner has, count, version
--          of the state and state; of one without a state these two are empty
-- Returns  for each session: 1 if it is stored; the owner's new generation, if it is stored under another one; 0 if the
--          session has been taken over, and nothing is stored
--
-- The first commit on another connection gets a new generation. Behind a failover two nodes may each think that they are the
-- owner, one of them because its takeover was lost: the first that commits wins, and the other one is refused from then on.
-- And what the node has sent on its former connection, and sends again on this one, may still arrive: it has the former
-- generation.
-- An earlier attempt of which the answer was lost has made a new generation too. That is of the owner's ('from'), so it is no
-- takeover.
local node, attempt, ttl = ARGV[1], ARGV[2], ARGV[3]
local answer, time = {}, nil
for i, key in ipairs(KEYS) do
  local id, token, generation, count, version, state = unpack(ARGV, 6 * i - 1, 6 * i + 4)
  local stored = redis.call('HMGET', key, 'generation', 'attempt', 'token', 'from', 'node')
  local owner, mine = tonumber(stored[1]) or 0, tonumber(generation)
  if owner == mine and stored[2] == attempt then
    redis.call('HSET', key, 'count', count, 'version', version, 'state', state)
    redis.call('PEXPIRE', key, ttl)
    answer[i] = 1
  elseif (owner > mine and tonumber(stored[4]) ~= mine)
    or (stored[3] == token and tonumber(stored[2]) >= tonumber(attempt)) then
    answer[i] = 0
  else
    time = time or redis.call('TIME')
    local new = string.format('%.0f', math.max(owner + 1, mine + 1, time[1] * 1000000 + time[2]))
    redis.call('HSET', key, 'generation', new, 'node', node, 'token', token, 'attempt', attempt, 'from', generation,
      'count', count, 'version', version, 'state', state)
    redis.call('PEXPIRE', key, ttl)
    if stored[5] and stored[5] ~= node then
      redis.call('PUBLISH', ARGV[4] .. stored[5], new .. ' ' .. id)
    end
    answer[i] = new
  end
end
return answer
